"""The engine that programs run on: its settings, and how a running program is interrupted."""

from __future__ import annotations

import ctypes
import threading
from contextlib import suppress
from typing import Any, Final

from wasmtime import Config, Engine, Store, WasmtimeError
from wasmtime import _ffi as ffi

from pie_anyio.server.component import NO_FINALIZER, current_host, new_error
from pie_anyio.server.host import Host
from pie_proto.events import Event

__all__ = ["Interrupter", "make_interruptible", "new_engine"]

# After a termination the epoch is raised again until the program is left: at first so soon that
# nobody waits, then rarely enough to cost nothing (an output may block for as long as it likes).
_FIRST_TICK_S: Final = 0.001
_LAST_TICK_S: Final = 0.1


def new_engine(*, cache: bool) -> Engine:
    """An engine whose programs can be interrupted; with ``cache``, compiled code is kept on disk.

    Where the system has no place for it, there is no cache.
    """
    config = Config()
    config.epoch_interruption = True
    # With signals, `faulthandler.enable()` after the first engine turns a trap into a crash.
    config.signals_based_traps = False
    # Or each instance reserves 4 GiB of addresses.
    config.memory_reservation = 0
    config.memory_guard_size = 0
    # WASI 0.3 and its tasks, which nothing here provides. With them, wasmtime 50 fails every host
    # function that is given two borrowed handles ("deferred host scope has no call context"): that
    # is `poll` with two pollables, what every asynchronous program does. No public setters.
    ffi.wasmtime_config_wasm_component_model_async_set(config.ptr(), False)
    ffi.wasmtime_config_concurrency_support_set(config.ptr(), False)
    if cache:
        with suppress(WasmtimeError):
            config.cache = True
    return Engine(config)


_EpochCallback: Final = ctypes.CFUNCTYPE(
    ctypes.c_size_t,
    ctypes.POINTER(ffi.wasmtime_context_t),
    ctypes.c_void_p,
    ctypes.POINTER(ctypes.c_uint64),
    ctypes.POINTER(ffi.wasmtime_update_deadline_kind_t),
)


# Called by compiled code when the epoch has been raised; nothing may be raised through that.
def _ask(_context: Any, _data: Any, delta: Any, _kind: Any) -> int:
    if current_host().outcome is not None:
        return new_error("the instance is over")
    delta[0] = 1
    return 0


_on_epoch: Final = _EpochCallback(_ask)


def make_interruptible(store: Store) -> None:
    """Make the program of ``store`` ask whether its instance is over, each time that
    `Interrupter.interrupt` is called from now on."""
    ffi.wasmtime_store_epoch_deadline_callback(store.ptr(), _on_epoch, None, NO_FINALIZER)
    store.set_epoch_deadline(1)


class Interrupter:
    """Knows which instances run on an engine, and makes them find out that they are over.

    Thread-safe. It has a thread only from an interruption until the program has been left.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._running: set[Host] = set()
        self._dying: set[Host] = set()
        self._ticker: threading.Thread | None = None
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether nothing more may be started."""
        return self._closed

    @property
    def ticker(self) -> threading.Thread | None:
        """The thread, while there is one."""
        return self._ticker

    def enter(self, host: Host) -> None:
        """From now on ``host`` can be interrupted; if this is closed, it is killed at once."""
        with self._lock:
            closed = self._closed
            self._running.add(host)
        if closed:
            host.end(Event.Aborted, "Server closed")

    def leave(self, host: Host) -> None:
        """Undo `enter`."""
        with self._lock:
            self._running.discard(host)
            self._dying.discard(host)

    def interrupt(self, host: Host) -> None:
        """Make a program ask whether it is over, if it runs; never blocks.

        Raising the epoch makes every running program ask. One that asked just before, and has not
        set its next deadline yet, would miss it: so it is raised again until the program is left.
        """
        with self._lock:
            if host not in self._running:
                return
            self._dying.add(host)
            if self._ticker is None:
                self._ticker = threading.Thread(target=self._tick, name="pie-epoch", daemon=True)
                self._ticker.start()
        self._engine.increment_epoch()

    def close(self) -> None:
        """Kill what runs, without waiting for it, and what would enter later."""
        with self._lock:
            self._closed = True
            running = list(self._running)
        for host in running:
            host.kill(Event.Aborted, "Server closed")

    def _tick(self) -> None:
        pause = _FIRST_TICK_S
        never = threading.Event()
        while True:
            never.wait(pause)
            pause = min(pause * 2, _LAST_TICK_S)
            with self._lock:
                if not self._dying:
                    self._ticker = None
                    return
            self._engine.increment_epoch()
