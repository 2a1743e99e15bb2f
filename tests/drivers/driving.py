"""Clients of every make, each run on its event loop, whose clock a test may move on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final, Protocol

import anyio
import trio.testing

from pie_anyio import PieClient
from pie_trio_adapter import open_client

__all__ = ["DRIVERS", "SOON", "UVLOOP", "Clock", "Driver"]

SOON: Final = 30
"""How long anything that must happen may take, in seconds: long enough for a busy machine."""

_Main = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Driver:
    """A kind of client and its event loop: ``async with driver.client(uri) as client:``."""

    name: str
    backend: str
    client: Callable[..., AbstractAsyncContextManager[Any]]
    uvloop: bool = False

    def run(self, main: _Main) -> None:
        """Run ``main`` to its end, bounded in time."""

        async def bounded() -> None:
            with anyio.fail_after(SOON):
                await main()

        options = {"use_uvloop": True} if self.uvloop else {}
        anyio.run(bounded, backend=self.backend, backend_options=options)

    def run_with_clock(self, main: Callable[[Clock], Awaitable[None]]) -> None:
        """Run ``main`` to its end, with a clock that it can move on."""
        if self.backend == "asyncio":
            anyio.run(lambda: main(_AsyncioClock()), backend="asyncio")
        else:
            clock = trio.testing.MockClock()
            options = {"clock": clock}
            anyio.run(lambda: main(_TrioClock(clock)), backend="trio", backend_options=options)


class Clock(Protocol):
    """The clock of the event loop that runs."""

    def jump(self, seconds: float) -> None:
        """Move it on, as a suspended machine or a debugger does."""


class _TrioClock:
    def __init__(self, clock: trio.testing.MockClock) -> None:
        self._clock = clock

    def jump(self, seconds: float) -> None:
        self._clock.jump(seconds)


class _AsyncioClock:
    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._time = self._loop.time
        self._ahead = 0.0
        self._loop.time = lambda: self._time() + self._ahead  # type: ignore[method-assign]

    def jump(self, seconds: float) -> None:
        self._ahead += seconds


DRIVERS: Final = (
    Driver("asyncio", "asyncio", PieClient),
    Driver("trio", "trio", PieClient),
    Driver("trio-adapter", "trio", open_client),
)

UVLOOP: Final = Driver("uvloop", "asyncio", PieClient, uvloop=True)
