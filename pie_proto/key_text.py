"""The text of a key file: its encoding, and what is in it, if that is no key to load."""

from __future__ import annotations

import codecs
import itertools
from typing import Final

from pie_proto.public_keys import KEY_TYPE, NO_TEXT, PEM_BEGIN

__all__ = ["encoding_of", "found_instead", "has_private_key", "has_public_key", "text_of"]

_PUTTY: Final = "PuTTY-User-Key-File-"

# Those of UTF-32 first: the little-endian one begins as that of UTF-16 does.
_MARKS: Final = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)

_WIDE: Final = {
    "utf-32-le": (False, True, True, True),
    "utf-32-be": (True, True, True, False),
    "utf-16-le": (False, True, False, True),
    "utf-16-be": (True, False, True, False),
}
"""Of the four bytes from a multiple of four: which are zero, where there is nothing but ASCII."""


def encoding_of(data: bytes) -> str:
    """The encoding of a text: as its byte order mark says, or by where its zero bytes are.

    A text with a key in it has ASCII characters, which are zero bytes in UTF-16 and UTF-32, and no
    zero byte in UTF-8. Without a mark, a tenth of the text has to be ASCII. Data with zero bytes at
    random is not text, and is called UTF-8 as well.
    """
    if b"\0" not in data:
        return "utf-8"
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return encoding
    for encoding, zeros in _WIDE.items():
        found = [data[start::4].count(0) * 4 for start in range(4)]
        if all(
            count > len(data) // 10 if is_zero else count < len(data) // 100 + 4
            for count, is_zero in zip(found, zeros, strict=True)
        ):
            return encoding
    return "utf-8"


def text_of(data: bytes) -> str:
    """The text in ``data``, without a byte order mark. What is no text has U+FFFD in its place."""
    return data.decode(encoding_of(data), "replace").removeprefix("\ufeff")


def found_instead(text: str) -> str:
    """What a text is that has no private key which is taken. Never a piece of the text itself."""
    labels = _labels(text)
    if labels:
        label = next((each for each in labels if "PRIVATE KEY" in each), labels[0])
        if label.endswith("PUBLIC KEY"):
            return "this is a public key"
        if "CERTIFICATE" in label:
            return "this is a certificate"
        return f"found a PEM block called {label}"
    words = text.split()
    if not words:
        return "the text is empty"
    if (key_type := _public_key_type(text)) is not None:
        kind = "certificate" if "-cert-" in key_type else "public key"
        return f"this is a {kind} ({key_type})"
    if text.startswith(_PUTTY):
        return "this is a key of PuTTY (.ppk), which PuTTYgen exports as an OpenSSH key"
    if text.startswith("0") and not text.isascii():
        return "this looks like a key in binary form (DER), which openssl turns into PEM"
    if "\0" in text:
        return NO_TEXT
    if len(words) == 1 and "\n" not in text.strip():
        return "found one word, and no key (from_file() takes the path of a file)"
    return "found no key"


def _public_key_type(text: str) -> str | None:
    """The type of the first OpenSSH public key in a text, which may begin with a comment."""
    words = text.split()
    for first, second in itertools.pairwise(words):
        if KEY_TYPE.fullmatch(first) and second.startswith("AAAA"):
            return first
    # A type without its key is a word like any other, unless it is the first one.
    return words[0] if words and KEY_TYPE.fullmatch(words[0]) else None


def has_private_key(text: str) -> bool:
    """Whether a text has a private key in it, of whatever kind and encrypted or not."""
    return text.startswith(_PUTTY) or any("PRIVATE KEY" in label for label in _labels(text))


def has_public_key(text: str) -> bool:
    """Whether a text has a public key in it, and no private one."""
    return not has_private_key(text) and (
        _public_key_type(text) is not None or any("PUBLIC KEY" in label for label in _labels(text))
    )


def _labels(text: str) -> list[str]:
    return [begin[1] for begin in PEM_BEGIN.finditer(text)]
