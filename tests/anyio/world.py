"""What a test of the client needs around it: a server, a client on it, and programs to run."""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

import anyio
import anyio.abc

from pie_anyio import Event, Instance, Limits, PieClient
from pie_anyio.server import Server, serve
from tests.programs import component

__all__ = [
    "SOON",
    "World",
    "connected",
    "launch",
    "other_process",
    "read_until",
    "text_of",
    "world",
]

SOON = 30
"""How long anything that must happen may take, in seconds: long enough for a busy machine."""


class OtherProcess:
    """A server in a process of its own, which can be killed."""

    def __init__(self, process: anyio.abc.Process, url: str) -> None:
        self._process = process
        self.url = url

    def stop(self) -> None:
        """Stop it where it stands, so that it neither reads nor writes nor ends."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)

    async def kill(self) -> None:
        """Kill it, as the kernel does: it says nothing to anybody."""
        self._process.kill()
        await self._process.wait()


@asynccontextmanager
async def other_process() -> AsyncIterator[OtherProcess]:
    """A server in a process of its own; all of it bounded in time."""
    command = [sys.executable, "-m", "pie_anyio.server"]
    with anyio.fail_after(2 * SOON):
        async with await anyio.open_process(command, stderr=None) as process:
            assert process.stdout is not None
            line = b""
            while not line.endswith(b"\n"):
                line += await process.stdout.receive()
            server = OtherProcess(process, line.decode().split()[-1])
            try:
                yield server
            finally:
                with anyio.CancelScope(shield=True):
                    if process.returncode is None:
                        await server.kill()


@asynccontextmanager
async def connected(server: Server | OtherProcess, **options: Any) -> AsyncIterator[PieClient]:
    """A client of ``server`` that has authenticated."""
    async with PieClient(server.url, **options) as client:
        await client.authenticate("ada")
        yield client


@asynccontextmanager
async def world(
    limits: Limits | None = None, *, in_memory: bool = False, **server_options: Any
) -> AsyncIterator[tuple[Server, PieClient]]:
    """A server and a client of it, by TCP or in memory; all of it bounded in time."""
    with anyio.fail_after(2 * SOON):
        async with serve(**server_options) as server:
            options: dict[str, Any] = {} if limits is None else {"limits": limits}
            if in_memory:
                options["connect"] = server.connect
            async with connected(server, **options) as client:
                yield server, client


class World(Protocol):
    """What `world` is, whatever carries it."""

    def __call__(
        self, limits: Limits | None = None, **server_options: Any
    ) -> AbstractAsyncContextManager[tuple[Server, PieClient]]: ...


async def launch(
    client: PieClient, program: str, args: Iterable[str] = (), *, detached: bool = False
) -> Instance:
    """Upload one of the test programs and launch it."""
    program_hash = await client.upload_program(component(program))
    return await client.launch_instance(program_hash, list(args), detached=detached)


async def read_until(instance: Instance, wanted: Event) -> tuple[list[tuple[Event, Any]], Any]:
    """Read events until one of the kind ``wanted``; what came before it, and its data."""
    before: list[tuple[Event, Any]] = []
    while True:
        event, data = await instance.recv()
        if event is wanted:
            return before, data
        before.append((event, data))


def text_of(events: Iterable[tuple[Event, Any]], kind: Event) -> str:
    """The text of all events of one kind, put together."""
    return "".join(data for event, data in events if event is kind)
