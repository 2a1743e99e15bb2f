"""The text of a key file, whatever encoding an editor or a shell has written it in."""

from __future__ import annotations

import codecs
from typing import Final

__all__ = ["encoding_of", "text_of"]

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
