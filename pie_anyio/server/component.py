"""Calls from WebAssembly components to Python: host functions, and how they are bound.

The callbacks of `wasmtime.component` keep the last exception in a process-wide variable, where
threads steal it from each other. So host functions are bound here, to the same C interface, and
what one raises stays with the instance that called it.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from wasmtime import Engine
from wasmtime import _ffi as ffi
from wasmtime import component as wc

from pie_anyio.server.host import (
    Host,
    HostError,
    HostFunction,
    HostFunctions,
    LimitExceeded,
    Unwind,
)
from pie_anyio.server.values import (
    Call,
    Lift,
    Lower,
    ResourceTypes,
    check,
    lift_for,
)
from pie_proto.events import Event

__all__ = [
    "NO_FINALIZER",
    "BoundFunction",
    "LinkError",
    "Linkage",
    "calling",
    "current_host",
    "interface_name",
    "new_error",
]


class LinkError(Exception):
    """A component imports what nobody provides; the text names it."""


class BoundFunction:
    """A host function behind the signature that a component imports it with."""

    __slots__ = ("_function", "_lifts", "_lower", "name")

    def __init__(
        self, name: str, function: HostFunction, lifts: tuple[Lift, ...], lower: Lower | None
    ) -> None:
        self.name = name
        self._function = function
        self._lifts = lifts
        self._lower = lower

    def __call__(self, host: Host, context: Any, arguments: Any, results: Any) -> None:
        """Call it with C values. Raises what the function raises."""
        call = Call(host, context)
        try:
            values = [lift(call, arguments[i]) for i, lift in enumerate(self._lifts)]
            host.check()
            result = self._function(host, *values)
            if self._lower is not None:
                self._lower(call, result, results[0])
        finally:
            for resource in call.owned:
                resource.close()


class _Current(threading.local):
    """What runs in this thread; there is something whenever compiled code calls back."""

    host: Host
    functions: tuple[BoundFunction, ...]


_current = _Current()


def current_host() -> Host:
    """The instance that runs in this thread."""
    return _current.host


@contextmanager
def calling(host: Host, functions: tuple[BoundFunction, ...]) -> Iterator[None]:
    """Within it, what a component calls in this thread are ``functions``, for ``host``."""
    before = vars(_current).copy()
    _current.host, _current.functions = host, functions
    try:
        yield
    finally:
        vars(_current).clear()
        vars(_current).update(before)


def new_error(text: str) -> int:
    """A new error of wasmtime's, as the number that a callback returns."""
    pointer = ffi.wasmtime_error_new(text.encode("utf-8", "replace"))
    return ctypes.cast(pointer, ctypes.c_void_p).value or 0


# Called by compiled code; nothing may be raised through that. It returns an error, or null.
def _answer(
    index: Any, context: Any, _type: Any, arguments: Any, _count: Any, results: Any, _n: Any
) -> int:
    host = _current.host
    function = _current.functions[index or 0]
    try:
        function(host, context, arguments, results)
    except Unwind:
        return new_error("the instance is over")
    except HostError as error:
        event = Event.ServerError if isinstance(error, LimitExceeded) else Event.Exception
        host.end(event, f"{function.name}: {error}")
        return new_error(str(error))
    except Exception as error:  # noqa: BLE001 - a fault of ours ends this instance, no other
        text = f"{function.name} failed: {type(error).__name__}: {error}"
        host.end(Event.ServerError, text)
        return new_error(text)
    except BaseException as error:  # noqa: BLE001 - Ctrl-C goes on once the program is left
        host.interruption = error
        host.end(Event.Aborted, "Interrupted")
        return new_error("interrupted")
    return 0


_on_call: Final = ffi.wasmtime_component_func_callback_t(_answer)


def _on_drop(_store: object, number: int) -> None:
    _current.host.drop(number)


NO_FINALIZER: Final = ctypes.cast(0, ctypes.CFUNCTYPE(None, ctypes.c_void_p))
"""For C functions that would tell when they let go of a pointer."""


def interface_name(name: str) -> str:
    """The name of an interface without its version: ``wasi:io/poll`` of ``wasi:io/poll@0.2.0``."""
    return name.partition("@")[0]


class Linkage:
    """A component's imports, bound to host functions.

    ``missing`` says what an import that is in no table comes to: a function that stands in for it,
    or ``None``, which fails the linking. Raises `LinkError` or `UnknownType`. Any number of threads
    may instantiate by it at once.
    """

    def __init__(
        self,
        engine: Engine,
        component: wc.Component,
        table: HostFunctions,
        missing: Callable[[str], HostFunction | None],
    ) -> None:
        self._engine = engine
        self._table = table
        self._missing = missing
        self._types = ResourceTypes()
        self._functions: list[BoundFunction] = []
        self.linker = wc.Linker(engine)
        with component.type as ty:
            imports = ty.imports(engine)
        self.imports = tuple(imports)
        with self.linker.root() as root:
            for name, extern in imports.items():
                item = extern.ty
                if not isinstance(item, wc.ComponentInstanceType):
                    raise LinkError(f"it imports {name!r}, which nobody provides")
                with root.add_instance(name) as instance:
                    self._define(name, item, instance)
        self.functions = tuple(self._functions)

    def _define(
        self, import_name: str, interface: wc.ComponentInstanceType, instance: wc.LinkerInstance
    ) -> None:
        for name, extern in interface.exports(self._engine).items():
            item = extern.ty
            if isinstance(item, wc.ResourceType):
                host_type = wc.ResourceType.host(self._types.number(item))
                instance.add_resource(name, host_type, _on_drop)
            elif isinstance(item, wc.FuncType):
                full_name = f"{interface_name(import_name)}#{name}"
                self._add(instance, name, self._bind(full_name, item))

    def _bind(self, full_name: str, ty: wc.FuncType) -> BoundFunction:
        function = self._table.get(full_name)
        if function is None:
            stand_in = self._missing(full_name)
            if stand_in is None:
                raise LinkError(f"it imports {full_name!r}, which nobody provides")
            # It raises whatever its arguments are: no need to understand their types.
            return BoundFunction(full_name, stand_in, (), None)
        lifts = tuple(lift_for(parameter) for _, parameter in ty.params)
        result = ty.result
        lower = None if result is None else self._types.lower_for(result)
        return BoundFunction(full_name, function, lifts, lower)

    def _add(self, instance: wc.LinkerInstance, name: str, function: BoundFunction) -> None:
        encoded = name.encode()
        error = ffi.wasmtime_component_linker_instance_add_func(
            instance.ptr(),
            ctypes.create_string_buffer(encoded),
            len(encoded),
            _on_call,
            len(self._functions),
            NO_FINALIZER,
        )
        check(error)
        self._functions.append(function)
