"""What a stranger calls a file, made into a name that a file can have, on any system."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

__all__ = ["NAME_BYTES", "beside", "safe_name"]

NAME_BYTES: Final = 255
"""The longest name of a file that common file systems take, in bytes of UTF-8."""

# What is longer is hardly what tells a kind of file.
_SUFFIX_BYTES = 32

# Those that command a terminal, turn the direction of writing, or are half of a pair. Line and
# paragraph separators with them.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})

# Devices of Windows, whatever the suffix, and with spaces before it.
_DEVICE = re.compile(
    r"(?:CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(?:COM|LPT)[0-9¹²³]) *(?:\..*)?", re.IGNORECASE
)


def safe_name(name: str) -> str:
    """A name for a file of what a stranger calls ``name``; empty if nothing of it is left.

    Its last component, whichever way the slashes lean, without what nobody sees, without dots and
    spaces at either end; ``_`` for what Windows does not take, and before what is a device there.
    At most `NAME_BYTES`, shortened before its suffix.
    """
    seen = "".join(char for char in name if unicodedata.category(char) not in _UNSEEN)
    last = re.split(r"[/\\]", seen)[-1]
    taken = re.sub(r'[<>:"|?*]', "_", last).strip(". ")
    if _DEVICE.fullmatch(taken):
        taken = "_" + taken
    return beside(taken, "")


def beside(name: str, mark: str) -> str:
    """The safe name with ``mark`` before its suffix, and shortened before that if need be."""
    stem, dot, suffix = name.rpartition(".")
    if not stem or len((dot + suffix).encode()) > _SUFFIX_BYTES:
        stem, dot, suffix = name, "", ""
    end = mark + dot + suffix
    room = NAME_BYTES - len(end.encode())
    if len(stem.encode()) > room:
        stem = stem.encode()[:room].decode("utf-8", "ignore").rstrip(". ")
    return stem + end
