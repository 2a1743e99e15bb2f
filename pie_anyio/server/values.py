"""Values of WebAssembly components as plain Python values, and back.

The converters of `wasmtime.component` look every type up at every call, and convert a list of
bytes one by one (2 s for 1 MB). Here a type is looked at once and gives a function, and bytes are
copied with a stride. A long module, but flat: for each kind of type there is one function that
lifts (takes from C) and one that lowers (gives to C).

====================================  ====================================================
integers, floats, ``bool``, strings   ``int``, ``float``, ``bool``, ``str``
``list<u8>``, other lists             ``bytes``, ``list``
tuple, record                         ``tuple``, ``dict``
``option<T>``                         ``None`` or the value
``result<T, E>``                      the value of the ok case, or `Err`
variant                               a pair: the name of the case, its payload or ``None``
enum, flags                           ``str``, ``set`` of ``str``
``own<R>``, ``borrow<R>``             the `Resource` itself
====================================  ====================================================
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import POINTER, byref, c_uint8
from typing import Any, Final, TypeAlias, cast

from wasmtime import WasmtimeError
from wasmtime import _ffi as ffi
from wasmtime import component as wc

from pie_anyio.server.host import Err, Host, HostError, Resource

__all__ = ["Call", "Lift", "Lower", "ResourceTypes", "UnknownType", "check", "lift_for"]

# A value of the C interface is a tag and a union: in an array of them the tags, and the low bytes
# of the unions, lie this far apart.
_STRIDE: Final = ctypes.sizeof(ffi.wasmtime_component_val_t)
_PAYLOAD: Final = ffi.wasmtime_component_val_t.of.offset
# Up to so many bytes a copy of it all costs less than an array type of just that length.
_FEW: Final = 4096

_U8_TAG: Final = bytes([ffi.WASMTIME_COMPONENT_U8.value])

Lift: TypeAlias = Callable[["Call", Any], Any]
"""Takes a C value and gives the Python one."""
Lower: TypeAlias = Callable[["Call", Any, Any], None]
"""Takes a Python value and writes it to a C one, the tag last: a failure leaves that valid."""


class UnknownType(Exception):
    """A type that no value is converted to or from; the text names it."""


def check(error: Any) -> None:
    """Raise the error that a C function returned, if it did."""
    if error:
        raise WasmtimeError._from_ptr(error)  # noqa: SLF001 - the library's own constructor


class Call:
    """What the converters of one call need besides the value."""

    __slots__ = ("context", "host", "owned")

    def __init__(self, host: Host, context: Any) -> None:
        self.host = host
        self.context = context
        self.owned: list[Resource] = []
        """What the program gave away in this call."""


# ---------------------------------------------------------------------------------------- scalars

_SCALARS: Final[dict[type[wc.ValType], tuple[int, str]]] = {
    wc.Bool: (ffi.WASMTIME_COMPONENT_BOOL.value, "boolean"),
    wc.S8: (ffi.WASMTIME_COMPONENT_S8.value, "s8"),
    wc.U8: (ffi.WASMTIME_COMPONENT_U8.value, "u8"),
    wc.S16: (ffi.WASMTIME_COMPONENT_S16.value, "s16"),
    wc.U16: (ffi.WASMTIME_COMPONENT_U16.value, "u16"),
    wc.S32: (ffi.WASMTIME_COMPONENT_S32.value, "s32"),
    wc.U32: (ffi.WASMTIME_COMPONENT_U32.value, "u32"),
    wc.S64: (ffi.WASMTIME_COMPONENT_S64.value, "s64"),
    wc.U64: (ffi.WASMTIME_COMPONENT_U64.value, "u64"),
    wc.F32: (ffi.WASMTIME_COMPONENT_F32.value, "f32"),
    wc.F64: (ffi.WASMTIME_COMPONENT_F64.value, "f64"),
}


def _lower_scalar(tag: int, field: str) -> Lower:
    def lower(_call: Call, value: Any, out: Any) -> None:
        setattr(out.of, field, value)
        out.kind = tag

    return lower


def _lower_char(_call: Call, value: Any, out: Any) -> None:
    out.of.character = ord(value)
    out.kind = ffi.WASMTIME_COMPONENT_CHAR.value


def _text(name: Any) -> str:
    return ctypes.string_at(name.data, name.size).decode() if name.size else ""


def _name(text: str) -> Any:
    return ffi.str_to_capi(text)


def _lower_string(_call: Call, value: Any, out: Any) -> None:
    out.of.string = _name(value)
    out.kind = ffi.WASMTIME_COMPONENT_STRING.value


def _lower_enum(_call: Call, value: Any, out: Any) -> None:
    out.of.enumeration = _name(value)
    out.kind = ffi.WASMTIME_COMPONENT_ENUM.value


# --------------------------------------------------------------------------------- bytes and lists


def _lift_bytes(call: Call, val: Any) -> bytes:
    size = val.of.list.size
    if size > call.host.call_bytes:
        raise HostError(
            f"{size} bytes in one call, more than {call.host.call_bytes} (limit call_bytes)"
        )
    if not size:
        return b""
    start = ctypes.addressof(val.of.list.data.contents) + _PAYLOAD
    # The last value ends before a whole stride is over, counted from its payload.
    length = (size - 1) * _STRIDE + 1
    if size <= _FEW:
        return ctypes.string_at(start, length)[::_STRIDE]
    return cast("bytes", (ctypes.c_char * length).from_address(start)[::_STRIDE])


def _lower_bytes(_call: Call, value: Any, out: Any) -> None:
    size = len(value)
    raw = ffi.wasmtime_component_vallist_t()
    ffi.wasmtime_component_vallist_new_uninit(byref(raw), size)
    if size:
        start = ctypes.addressof(raw.data.contents)
        view = memoryview((c_uint8 * (size * _STRIDE)).from_address(start)).cast("B")
        view[::_STRIDE] = _U8_TAG * size
        view[_PAYLOAD::_STRIDE] = value
    out.of.list = raw
    out.kind = ffi.WASMTIME_COMPONENT_LIST.value


def _lift_list(element: Lift) -> Lift:
    def lift(call: Call, val: Any) -> list[Any]:
        values = val.of.list
        return [element(call, values.data[i]) for i in range(values.size)]

    return lift


def _lower_list(element: Lower) -> Lower:
    def lower(call: Call, value: Any, out: Any) -> None:
        raw = ffi.wasmtime_component_vallist_t()
        ffi.wasmtime_component_vallist_new_uninit(byref(raw), len(value))
        for i, item in enumerate(value):
            element(call, item, raw.data[i])
        out.of.list = raw
        out.kind = ffi.WASMTIME_COMPONENT_LIST.value

    return lower


def _lift_tuple(elements: list[Lift]) -> Lift:
    def lift(call: Call, val: Any) -> tuple[Any, ...]:
        values = val.of.tuple
        return tuple(element(call, values.data[i]) for i, element in enumerate(elements))

    return lift


def _lower_tuple(elements: list[Lower]) -> Lower:
    def lower(call: Call, value: Any, out: Any) -> None:
        raw = ffi.wasmtime_component_valtuple_t()
        ffi.wasmtime_component_valtuple_new_uninit(byref(raw), len(elements))
        for i, element in enumerate(elements):
            element(call, value[i], raw.data[i])
        out.of.tuple = raw
        out.kind = ffi.WASMTIME_COMPONENT_TUPLE.value

    return lower


def _lift_record(fields: list[tuple[str, Lift]]) -> Lift:
    def lift(call: Call, val: Any) -> dict[str, Any]:
        values = val.of.record
        return {name: field(call, values.data[i].val) for i, (name, field) in enumerate(fields)}

    return lift


def _lower_record(fields: list[tuple[str, Lower]]) -> Lower:
    def lower(call: Call, value: Any, out: Any) -> None:
        raw = ffi.wasmtime_component_valrecord_t()
        ffi.wasmtime_component_valrecord_new_uninit(byref(raw), len(fields))
        for i, (name, field) in enumerate(fields):
            field(call, value[name], raw.data[i].val)
            raw.data[i].name = _name(name)
        out.of.record = raw
        out.kind = ffi.WASMTIME_COMPONENT_RECORD.value

    return lower


def _lift_flags(_call: Call, val: Any) -> set[str]:
    return {_text(val.of.flags.data[i]) for i in range(val.of.flags.size)}


def _lower_flags(_call: Call, value: Any, out: Any) -> None:
    raw = ffi.wasmtime_component_valflags_t()
    ffi.wasmtime_component_valflags_new_uninit(byref(raw), len(value))
    for i, name in enumerate(value):
        raw.data[i] = _name(name)
    out.of.flags = raw
    out.kind = ffi.WASMTIME_COMPONENT_FLAGS.value


# ---------------------------------------------------------------------------------------- variants


def _boxed(call: Call, lower: Lower | None, value: Any) -> Any:
    if lower is None:
        return None
    raw = ffi.wasmtime_component_val_t()
    lower(call, value, raw)
    return ffi.wasmtime_component_val_new(byref(raw))


def _lift_option(payload: Lift) -> Lift:
    def lift(call: Call, val: Any) -> Any:
        return payload(call, val.of.option.contents) if val.of.option else None

    return lift


def _lower_option(payload: Lower) -> Lower:
    def lower(call: Call, value: Any, out: Any) -> None:
        out.of.option = None if value is None else _boxed(call, payload, value)
        out.kind = ffi.WASMTIME_COMPONENT_OPTION.value

    return lower


def _lift_result(ok: Lift | None, err: Lift | None) -> Lift:
    def lift(call: Call, val: Any) -> Any:
        result = val.of.result
        payload = ok if result.is_ok else err
        value = payload(call, result.val.contents) if payload else None
        return value if result.is_ok else Err(value)

    return lift


def _lower_result(ok: Lower | None, err: Lower | None) -> Lower:
    def lower(call: Call, value: Any, out: Any) -> None:
        if isinstance(value, Err):
            is_ok, boxed = False, _boxed(call, err, value.payload)
        else:
            is_ok, boxed = True, _boxed(call, ok, value)
        out.of.result.is_ok = is_ok
        out.of.result.val = boxed
        out.kind = ffi.WASMTIME_COMPONENT_RESULT.value

    return lower


def _lift_variant(cases: dict[str, Lift | None]) -> Lift:
    def lift(call: Call, val: Any) -> tuple[str, Any]:
        case = _text(val.of.variant.discriminant)
        payload = cases[case]
        return case, payload(call, val.of.variant.val.contents) if payload else None

    return lift


def _lower_variant(cases: dict[str, Lower | None]) -> Lower:
    def lower(call: Call, value: Any, out: Any) -> None:
        case, payload = value
        boxed = _boxed(call, cases[case], payload)
        out.of.variant.discriminant = _name(case)
        out.of.variant.val = boxed
        out.kind = ffi.WASMTIME_COMPONENT_VARIANT.value

    return lower


# ----------------------------------------------------------------------------------------- handles


def _number_of(call: Call, val: Any) -> int:
    """The number behind a handle, which is released: a borrow kept would fail the call."""
    handle = ffi.take_pointer(val.of, "resource")
    host_handle = POINTER(ffi.wasmtime_component_resource_host_t)()
    error = ffi.wasmtime_component_resource_any_to_host(call.context, handle, byref(host_handle))
    ffi.wasmtime_component_resource_any_delete(handle)
    check(error)
    number = ffi.wasmtime_component_resource_host_rep(host_handle)
    ffi.wasmtime_component_resource_host_delete(host_handle)
    return number


def _lift_borrow(call: Call, val: Any) -> Any:
    return call.host.resource(_number_of(call, val))


def _lift_own(call: Call, val: Any) -> Any:
    resource = call.host.take(_number_of(call, val))
    call.owned.append(resource)
    return resource


def _lower_own(type_number: int) -> Lower:
    def lower(call: Call, value: Any, out: Any) -> None:
        host_handle = ffi.wasmtime_component_resource_host_new(
            True, call.host.open(value), type_number
        )
        handle = POINTER(ffi.wasmtime_component_resource_any_t)()
        error = ffi.wasmtime_component_resource_host_to_any(
            call.context, host_handle, byref(handle)
        )
        ffi.wasmtime_component_resource_host_delete(host_handle)
        check(error)
        out.of.resource = handle
        out.kind = ffi.WASMTIME_COMPONENT_RESOURCE.value

    return lower


# -------------------------------------------------------------------------------------- signatures


def lift_for(ty: wc.ValType) -> Lift:
    """How to take a value of a type. Raises `UnknownType`."""
    match ty:
        case _ if type(ty) in _SCALARS:
            field = _SCALARS[type(ty)][1]
            return lambda _call, val: getattr(val.of, field)
        case wc.Char():
            return lambda _call, val: chr(val.of.character)
        case wc.String():
            return lambda _call, val: _text(val.of.string)
        case wc.ListType():
            element = ty.element
            return _lift_bytes if isinstance(element, wc.U8) else _lift_list(lift_for(element))
        case wc.TupleType():
            return _lift_tuple([lift_for(element) for element in ty.elements])
        case wc.RecordType():
            return _lift_record([(name, lift_for(field)) for name, field in ty.fields])
        case wc.EnumType():
            return lambda _call, val: _text(val.of.enumeration)
        case wc.FlagsType():
            return _lift_flags
        case wc.OptionType():
            return _lift_option(lift_for(ty.payload))
        case wc.ResultType():
            return _lift_result(_lift_maybe(ty.ok), _lift_maybe(ty.err))
        case wc.VariantType():
            return _lift_variant({name: _lift_maybe(payload) for name, payload in ty.cases})
        case wc.OwnType():
            return _lift_own
        case wc.BorrowType():
            return _lift_borrow
        case _:
            raise UnknownType(f"a parameter of type {type(ty).__name__}")


def _lift_maybe(ty: wc.ValType | None) -> Lift | None:
    return None if ty is None else lift_for(ty)


class ResourceTypes:
    """Numbers the resource types of one component: the same type under several names is one."""

    def __init__(self) -> None:
        self._types: list[wc.ResourceType] = []

    def number(self, ty: wc.ResourceType) -> int:
        """The number of a type, the same for the same type."""
        for number, known in enumerate(self._types):
            if known == ty:
                return number
        self._types.append(ty)
        return len(self._types) - 1

    def _lower_maybe(self, ty: wc.ValType | None) -> Lower | None:
        return None if ty is None else self.lower_for(ty)

    def lower_for(self, ty: wc.ValType) -> Lower:
        """How to give a value of a type. Raises `UnknownType`."""
        match ty:
            case _ if type(ty) in _SCALARS:
                return _lower_scalar(*_SCALARS[type(ty)])
            case wc.Char():
                return _lower_char
            case wc.String():
                return _lower_string
            case wc.ListType():
                element = ty.element
                if isinstance(element, wc.U8):
                    return _lower_bytes
                return _lower_list(self.lower_for(element))
            case wc.TupleType():
                return _lower_tuple([self.lower_for(element) for element in ty.elements])
            case wc.RecordType():
                return _lower_record([(name, self.lower_for(field)) for name, field in ty.fields])
            case wc.EnumType():
                return _lower_enum
            case wc.FlagsType():
                return _lower_flags
            case wc.OptionType():
                return _lower_option(self.lower_for(ty.payload))
            case wc.ResultType():
                return _lower_result(self._lower_maybe(ty.ok), self._lower_maybe(ty.err))
            case wc.VariantType():
                return _lower_variant(
                    {name: self._lower_maybe(payload) for name, payload in ty.cases}
                )
            case wc.OwnType():
                return _lower_own(self.number(ty.ty))
            case _:
                raise UnknownType(f"a result of type {type(ty).__name__}")
