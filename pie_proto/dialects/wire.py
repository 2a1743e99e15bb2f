"""MessagePack maps, read and written strictly: where foreign exceptions can arise, and end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import msgpack

from pie_proto.errors import LocalProtocolError, RemoteProtocolError

__all__ = ["bin_prefix", "field", "pack", "text_list", "unpack_map"]

_T = TypeVar("_T")


def pack(fields: dict[str, object]) -> bytes:
    """Pack one message. Raises `LocalProtocolError` for what cannot be packed, and nothing else."""
    try:
        # Not by a packer kept for it, which two threads could use at one time.
        return msgpack.packb(fields)
    except Exception as exc:  # UnicodeEncodeError, OverflowError, TypeError, ValueError
        raise LocalProtocolError(
            f"a message of type {fields.get('type')!r} cannot be packed: {exc}"
        ) from exc


def bin_prefix(fields: dict[str, object], name: str, length: int) -> bytes:
    """A packed map of ``fields`` and, last, ``name`` with ``length`` bytes that are yet to follow.

    The content is sent behind it from where it lies, without ever being copied into the map.
    """
    packed = pack(fields)
    # A fixmap: its first byte is 0x80 | number of entries, and no message has 15 of them.
    head = bytes((packed[0] + 1,))
    if length <= 0xFF:
        header = b"\xc4" + length.to_bytes(1, "big")
    elif length <= 0xFFFF:
        header = b"\xc5" + length.to_bytes(2, "big")
    else:
        header = b"\xc6" + length.to_bytes(4, "big")
    return b"".join((head, packed[1:], msgpack.packb(name), header))


def unpack_map(payload: bytes) -> Mapping[str, object]:
    """Read one message: a map with string keys. Raises `RemoteProtocolError` and nothing else."""
    try:
        message = msgpack.unpackb(payload, raw=False, strict_map_key=True)
    except Exception as exc:  # msgpack raises what it likes: ValueError, TypeError, …
        raise RemoteProtocolError(
            f"a message of {len(payload)} bytes is not MessagePack: "
            f"{str(exc).strip() or type(exc).__name__}",
            close_code=1007,
        ) from exc
    if not isinstance(message, dict) or not all(type(key) is str for key in message):
        raise RemoteProtocolError(
            f"a message is not a map with string keys but {type(message).__name__}",
            close_code=1007,
        )
    return message


def field(message: Mapping[str, object], name: str, kind: type[_T]) -> _T:
    """A field of a message, of just this type (a bool is no int). Raises `RemoteProtocolError`."""
    value = message.get(name)
    if type(value) is not kind:
        found = f"is {type(value).__name__}" if name in message else "is missing"
        raise RemoteProtocolError(
            f"{_kind_of(message)} the field {name!r} {found}, not {kind.__name__}", close_code=1007
        )
    if isinstance(value, int) and value < 0:
        raise RemoteProtocolError(
            f"{_kind_of(message)} the field {name!r} is negative", close_code=1007
        )
    return value


def _kind_of(message: Mapping[str, object]) -> str:
    # Only a string is shown: what else stands there may be nested too deeply even for a repr().
    name = message.get("type")
    return f"in a message of type {name[:40]!r}" if isinstance(name, str) else "in a message"


def text_list(message: Mapping[str, object], name: str) -> tuple[str, ...]:
    """A field that is a list of strings. Raises `RemoteProtocolError`."""
    values: list[object] = field(message, name, list)
    if not all(type(value) is str for value in values):
        raise RemoteProtocolError(f"the field {name!r} is not a list of strings", close_code=1007)
    return tuple(str(value) for value in values)
