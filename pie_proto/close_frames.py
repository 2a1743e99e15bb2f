"""What a Close frame carries (RFC 6455, sections 5.5.1 and 7.4): a code and a reason, both ways."""

from __future__ import annotations

from typing import Final

from pie_proto.errors import RemoteProtocolError

__all__ = ["close_payload", "is_sendable_code", "read_close_payload"]

# A control frame carries at most 125 bytes, and the code takes two of them.
_REASON_BYTES: Final = 123


def is_sendable_code(code: object) -> bool:
    """Whether a Close frame may carry this code, whichever side sends it.

    These are the codes that IANA has registered (1012 to 1014 came after the RFC), and the ranges
    of libraries (3000 to 3999) and applications (4000 to 4999). 1004 is reserved; 1005, 1006 and
    1015 stand for the absence of a Close frame.
    """
    return isinstance(code, int) and (
        1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999
    )


def close_payload(code: int, reason: str) -> bytes:
    """Make the payload; of ``reason``, the first 123 bytes of UTF-8, cut between characters."""
    text = reason.encode("utf-8", "replace")[:_REASON_BYTES]
    return code.to_bytes(2, "big") + text.decode("utf-8", "ignore").encode()


def read_close_payload(payload: bytes, peer: str) -> tuple[int | None, str]:
    """Read what ``peer`` sent; the code is ``None`` if there is none.

    Raises `RemoteProtocolError` for a code that no side may send, and a reason that is not UTF-8.
    """
    if not payload:
        return None, ""
    if len(payload) == 1:
        raise RemoteProtocolError(f"the {peer} broke the protocol: a Close frame with half a code")
    code = int.from_bytes(payload[:2], "big")
    if not is_sendable_code(code):
        raise RemoteProtocolError(
            f"the {peer} broke the protocol: a Close frame with the code {code}, which may not be "
            "sent"
        )
    try:
        reason = payload[2:].decode()
    except UnicodeDecodeError as error:
        raise RemoteProtocolError(
            f"the {peer} broke the protocol: a Close frame whose reason is not UTF-8: {error}",
            close_code=1007,
        ) from error
    return code, reason
