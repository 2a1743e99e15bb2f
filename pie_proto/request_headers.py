"""Headers that a client adds to its opening handshake: which ones it may."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

__all__ = ["checked_headers"]

# RFC 9110: a token; and visible characters, with spaces and tabs only between them.
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"(?:[!-~]+(?:[ \t]+[!-~]+)*)?")

# The handshake's own, and those that say where the request ends: there is nothing behind it.
_OWN: Final = frozenset(
    {"connection", "content-length", "host", "te", "trailer", "transfer-encoding", "upgrade"}
)
_OWN_PREFIXES: Final = ("proxy-", "sec-websocket-")


def checked_headers(
    headers: Mapping[str, str] | Iterable[tuple[str, str]],
) -> tuple[tuple[str, str], ...]:
    """Check what is to be added to the opening request; a mapping, or pairs of name and value.

    Raises `ValueError` for what HTTP does not take and for what the handshake says itself. A value
    may be a secret, and is not repeated.
    """
    pairs: Iterable[object] = headers.items() if isinstance(headers, Mapping) else headers
    checked = []
    for pair in pairs:
        match pair:
            case (str(name), str(value)):
                pass
            case _:
                raise ValueError("headers are a mapping of str to str, or pairs of them")
        if not _NAME.fullmatch(name):
            raise ValueError(f"this is no name of an HTTP header: {name!r}")
        if name.lower() in _OWN or name.lower().startswith(_OWN_PREFIXES):
            raise ValueError(f"the header {name} is the handshake's own")
        if not _VALUE.fullmatch(value):
            raise ValueError(
                f"the value of the header {name} is to be visible ASCII characters, with spaces "
                "only between them"
            )
        checked.append((name, value))
    return tuple(checked)
