"""Masking of WebSocket payloads (RFC 6455, section 5.3): pure Python, or native if installed."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import cast

__all__ = ["mask"]

# Integers of this size stay in caches and in the allocator's own pools; at 64 KiB the same work
# takes up to twice as long. A multiple of 4, so that every piece begins with the key's first byte.
_PIECE = 8192

# Below this, calling a C function gains less than its first import costs.
_NATIVE_FROM = 4096


def mask(data: bytes | bytearray | memoryview, key: bytes) -> bytes:
    """Mask or unmask ``data``, any size, with a 4-byte ``key``; its first byte meets the key's.

    From 4 KiB on, the C function of the ``websockets`` package is used if that is installed. It is
    looked for when it is first needed, never at import.
    """
    size = len(data)
    if size < _NATIVE_FROM:
        return _mask_piece(data, key)
    native = _native_mask()
    if native is not None:
        return native(data, key)
    view = memoryview(data)
    pad = int.from_bytes(key * (_PIECE // 4), "little")
    whole = size - size % _PIECE
    pieces = [
        (int.from_bytes(view[at : at + _PIECE], "little") ^ pad).to_bytes(_PIECE, "little")
        for at in range(0, whole, _PIECE)
    ]
    pieces.append(_mask_piece(view[whole:], key))
    return b"".join(pieces)


def _mask_piece(data: bytes | bytearray | memoryview, key: bytes) -> bytes:
    size = len(data)
    pad = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "little") ^ int.from_bytes(pad, "little")).to_bytes(size, "little")


@functools.cache
def _native_mask() -> Callable[[bytes | bytearray | memoryview, bytes], bytes] | None:
    try:
        speedups = importlib.import_module("websockets.speedups")
    except ImportError:
        return None
    return cast("Callable[[bytes | bytearray | memoryview, bytes], bytes]", speedups.apply_mask)
