"""Programs made as large as a test wants them, and otherwise the same."""

from __future__ import annotations

__all__ = ["padded"]


def padded(program: bytes, size: int) -> bytes:
    """The program with a custom section, which nobody reads, of ``size`` bytes and a few."""
    section = bytes((7,)) + b"padding" + bytes(size)
    return program + b"\x00" + _leb128(len(section)) + section


def _leb128(number: int) -> bytes:
    """The form in which WebAssembly writes a length."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])
