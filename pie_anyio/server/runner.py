"""Runs programs: compiles components and executes instances, each in the thread that calls it.

It knows WebAssembly, and nothing of connections, sessions or event loops: what an instance says
goes to a function, what it is told comes in by method calls. `Runner` compiles, `Execution` runs.

This is for development and tests, not a sandbox for hostile code: a program runs in this process,
and only `RunnerLimits` stands between it and the machine.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Sequence
from typing import Final

from wasmtime import Store, WasmtimeError
from wasmtime import _ffi as ffi
from wasmtime import component as wc

from pie_anyio.server import inferlet, wasi
from pie_anyio.server.component import Linkage, LinkError, calling, interface_name
from pie_anyio.server.engine import Interrupter, make_interruptible, new_engine
from pie_anyio.server.host import Host, HostFunction, HostFunctions, OutputClosed, Unwind
from pie_anyio.server.runner_limits import RunnerLimits
from pie_anyio.server.values import UnknownType, check
from pie_proto.events import Event

__all__ = ["Execution", "OutputClosed", "Program", "ProgramError", "Runner"]

_RUN: Final = "inferlet:core/run"

# How wasmtime words it when a program asks for more than `Store.set_limits` gave it.
_LIMITS_IN_WORDS: Final = {
    "exceeds memory limits": "memory_bytes",
    "exceeds table limits": "table_elements",
    "instance count too high": "instances",
    "table count too high": "tables",
    "memory count too high": "memories",
    "too much data is being copied": "call_bytes",
}


# How wasmtime begins each of several causes.
_NUMBERED: Final = re.compile(r"\d+: ")


class ProgramError(Exception):
    """The bytes are not a program that can run here; the text says why, for the user."""


class Program:
    """A compiled component, to be run any number of times. Compared and hashed by identity."""

    __slots__ = ("__weakref__", "_component", "_linkage", "_run", "imports")

    def __init__(self, component: wc.Component, linkage: Linkage, run: wc.ExportIndex) -> None:
        self._component = component
        self._linkage = linkage
        self._run = run
        self.imports: tuple[str, ...] = linkage.imports
        """The names of the interfaces that it imports, with their versions."""

    def __repr__(self) -> str:
        return f"<Program, {len(self.imports)} imports>"

    def call_run(self, store: Store, host: Host) -> str | None:
        """Instantiate it in ``store``, and run it for ``host``; the text of its error, if any.

        Raises ``WasmtimeError`` for a trap, an exceeded limit, or an end decided by the host.
        """
        with calling(host, self._linkage.functions):
            instance = self._linkage.linker.instantiate(store, self._component)
            function = instance.get_func(store, self._run)
            assert function is not None  # noqa: S101 - looked at when it was compiled
            return _call_run(function, store)


class Runner:
    """Compiles components, and keeps the engine that they run on; one per server.

    All methods are for any thread. With ``cache``, compiled code is kept on disk where the
    system keeps caches (what took 13 s takes 0.1 s the second time); where there is no such
    place, that is silently done without. ``functions`` are host functions of your own, by
    ``interface#function``, beside or instead of those of `wasi` and `inferlet`.
    """

    def __init__(
        self,
        *,
        limits: RunnerLimits | None = None,
        cache: bool = True,
        functions: HostFunctions | None = None,
    ) -> None:
        self.limits = limits or RunnerLimits()
        self._functions = {**wasi.FUNCTIONS, **inferlet.FUNCTIONS, **(functions or {})}
        self.engine = new_engine(cache=cache)
        self.interrupter = Interrupter(self.engine)
        self.shared = inferlet.Shared(store_bytes=self.limits.store_bytes)

    def compile(self, component: bytes | str) -> Program:
        """Compile a component: its binary form, or its text (``str`` always is).

        Blocks, up to many seconds for a large program; other threads go on meanwhile. Raises
        `ProgramError` if it is no component, does not compile, does not export
        ``inferlet:core/run``, or imports what nobody provides.
        """
        if self.interrupter.closed:
            raise ProgramError("the server is closing")
        if isinstance(component, bytes) and component.startswith(b"\0asm\1\0\0\0"):
            raise ProgramError(
                "this is a core WebAssembly module, and a Pie program is a component:"
                " build it for the target wasm32-wasip2"
            )
        if isinstance(component, bytes) and not component.lstrip().startswith(
            (b"\0asm", b"(", b";")
        ):
            raise ProgramError(
                f"not a WebAssembly component: it begins with {component[:8]!r}, and programs in"
                " source cannot run here"
            )
        try:
            compiled = wc.Component(self.engine, component)
        except (WasmtimeError, ValueError) as error:
            raise ProgramError(f"not a WebAssembly component: {_reason(str(error))}") from error
        try:
            with compiled.type as ty:
                self._check_versions(ty)
                run = self._find_run(compiled, ty)
            return Program(
                compiled, Linkage(self.engine, compiled, self._functions, _stand_in), run
            )
        except (LinkError, UnknownType) as error:
            raise ProgramError(f"the program cannot run here: {error}") from None

    def _check_versions(self, ty: wc.ComponentType) -> None:
        for name in ty.imports(self.engine):
            if name.startswith("wasi:") and "@0.3" in name:
                raise LinkError(f"it imports {name!r}; only WASI 0.2 is provided")

    def _find_run(self, component: wc.Component, ty: wc.ComponentType) -> wc.ExportIndex:
        for name, extern in ty.exports(self.engine).items():
            interface = extern.ty
            if interface_name(name) != _RUN or not isinstance(interface, wc.ComponentInstanceType):
                continue
            function = interface.exports(self.engine).get("run")
            index = component.get_export_index("run", component.get_export_index(name))
            if function is not None and index is not None and _is_run(function.ty):
                return index
            raise LinkError(f"its {name!r} has no `run: func() -> result<_, string>`")
        raise LinkError(f"it does not export {_RUN!r}")

    def close(self) -> None:
        """Compile and start nothing more, and terminate what runs, without waiting for it."""
        self.interrupter.close()


class Execution:
    """One run of a program.

    ``output`` takes what the instance says, in the instance's thread: `Event.Stdout`,
    `Event.Stderr` and `Event.Message` with ``str``, `Event.Blob` with ``bytes``. It may block, and
    the program with it; nothing else waits. Once it raises `OutputClosed` the instance ends as
    Aborted. The outcome does not go to ``output``: it is what `run` returns.

    Raises ``ValueError`` for an argument that contains a NUL or is no valid Unicode: a program
    would get it cut short, or not at all.
    """

    def __init__(
        self,
        runner: Runner,
        program: Program,
        *,
        instance_id: str,
        arguments: Sequence[str],
        output: Callable[[Event, str | bytes], None],
    ) -> None:
        for position, argument in enumerate(arguments):
            if "\0" in argument:
                raise ValueError(f"argument {position} contains a NUL: {argument!r}")
            argument.encode()
        self._runner = runner
        self._program = program
        self._started = False
        self._host = Host(
            instance_id=instance_id,
            arguments=arguments,
            output=output,
            shared=runner.shared,
            held_bytes=runner.limits.held_bytes,
            call_bytes=runner.limits.call_bytes,
            interrupt=runner.interrupter.interrupt,
        )

    # ---------------------------------------------------------------------- from any other thread

    def send_message(self, text: str) -> None:
        """Give the instance a message, which waits there until it is received; never blocks.

        May come before, during and after the run; after, it is dropped. Raises ``ValueError`` for
        text that is no valid Unicode. More than ``held_bytes`` unreceived end the instance.
        """
        self._host.messages.put(text, len(text.encode()))

    def send_blob(self, data: bytes) -> None:
        """Give the instance a blob; otherwise like `send_message`."""
        self._host.blobs.put(data, len(data))

    def terminate(self, reason: str = "Signal termination") -> None:
        """End the instance as Aborted, with this text; never blocks.

        Wherever the program is, it is left at once, except for an ``output`` that blocks: that
        must return first. Before `run`, the program is not begun. After the end: nothing.
        """
        self._host.kill(Event.Aborted, reason)

    # ----------------------------------------------------------------------- in a thread of its own

    def run(self) -> tuple[Event, str]:
        """Run the program in this thread, to its end. Blocks; raises nothing but Ctrl-C.

        Returns how it ended, with a text: Completed with the return value (maybe empty), Exception
        with the program's error or the trap, Aborted with the reason, ServerError with the limit
        that was exceeded. An execution runs once; another call gives ServerError.
        """
        host, runner = self._host, self._runner
        with host.condition:
            if self._started:
                return Event.ServerError, "an execution runs only once"
            self._started = True
        runner.interrupter.enter(host)
        try:
            self._run()
        except Unwind:
            pass
        except Exception as error:  # noqa: BLE001 - a fault of ours must not take the caller along
            host.end(Event.ServerError, f"{type(error).__name__}: {error}")
        finally:
            runner.interrupter.leave(host)
            runner.shared.forget(host)
        if host.interruption is not None:
            raise host.interruption
        assert host.outcome is not None  # noqa: S101 - every way above decides it
        return host.outcome

    def _run(self) -> None:
        host, limits = self._host, self._runner.limits
        with Store(self._runner.engine) as store:
            store.set_limits(
                memory_size=limits.memory_bytes,
                table_elements=limits.table_elements,
                instances=limits.instances,
                tables=limits.tables,
                memories=limits.memories,
            )
            make_interruptible(store)
            # An end decided before this line has not interrupted anything.
            host.check()
            try:
                error = self._program.call_run(store, host)
            except WasmtimeError as failure:
                # What the program said before it failed comes first. If its end had been decided
                # by the host, this leaves: the failure is only how the program was left.
                host.flush()
                host.end(*_failure(str(failure)))
            else:
                host.flush()
                if error is None:
                    host.end(Event.Completed, host.return_value)
                else:
                    host.end(Event.Exception, error)


def _call_run(function: wc.Func, store: Store) -> str | None:
    """Call ``run``; not by way of `Func.__call__`, which may raise what another thread did."""
    result = ffi.wasmtime_component_val_t()
    context, pointer = store._context(), ctypes.byref(function._func)  # noqa: SLF001
    check(ffi.wasmtime_component_func_call(pointer, context, None, 0, ctypes.byref(result), 1))
    try:
        if result.of.result.is_ok:
            return None
        text = result.of.result.val.contents.of.string
        return ctypes.string_at(text.data, text.size).decode() if text.size else ""
    finally:
        ffi.wasmtime_component_val_delete(ctypes.byref(result))


def _is_run(item: object) -> bool:
    if not isinstance(item, wc.FuncType) or item.params:
        return False
    result = item.result
    return (
        isinstance(result, wc.ResultType)
        and result.ok is None
        and isinstance(result.err, wc.String)
    )


def _stand_in(name: str) -> HostFunction | None:
    return wasi.stand_in(name) or inferlet.stand_in(name)


def _reason(text: str) -> str:
    """The line of wasmtime's that says what is the matter.

    It begins with where; then come the causes, numbered if there are many, the last the root.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if "Caused by:" not in lines:
        return lines[0] if lines else "no reason given"
    causes = lines[lines.index("Caused by:") + 1 :]
    numbered = [cause for cause in causes if _NUMBERED.match(cause)]
    return _NUMBERED.sub("", numbered[-1]) if numbered else causes[0]


def _failure(text: str) -> tuple[Event, str]:
    """What a failure that the host did not cause comes to."""
    reason = _reason(text)
    for words, limit in _LIMITS_IN_WORDS.items():
        if words in text:
            # What cannot be called with so much is the program's fault; what it may take is ours.
            event = Event.Exception if limit == "call_bytes" else Event.ServerError
            return event, f"{reason} (limit {limit})"
    return Event.Exception, reason
