"""What a test of the trio client needs around it: a server process, and a client on it."""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial, wraps
from typing import Any, ParamSpec

import trio
import trio.testing

from pie_trio_adapter import Event, Instance, Limits, TrioPieClient, open_client
from tests.programs import component

__all__ = [
    "NARROW",
    "SOON",
    "OtherProcess",
    "connected",
    "in_trio",
    "launch",
    "other_process",
    "read_until",
]

SOON = 30
"""How long anything that must happen may take, in seconds: long enough for a busy machine."""

# As the default, but full sooner: for what does not depend on how much it is.
NARROW = Limits(unread_bytes=1024 * 1024, unread_low_bytes=512 * 1024, request_grace=0.2)

P = ParamSpec("P")


def in_trio(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Run a test in a trio of its own, bounded in time."""

    @wraps(test)
    async def bounded(*args: P.args, **kwargs: P.kwargs) -> None:
        with trio.fail_after(2 * SOON):
            await test(*args, **kwargs)

    return trio.testing.trio_test(bounded)  # type: ignore[return-value]


class OtherProcess:
    """A server in a process of its own, which can be killed."""

    def __init__(self, process: trio.Process, url: str) -> None:
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
async def other_process(*arguments: str) -> AsyncIterator[OtherProcess]:
    """A server in a process of its own, for tests that do it harm."""
    command = [sys.executable, "-m", "pie_anyio.server", *arguments]
    raised: BaseException | None = None
    async with trio.open_nursery() as nursery:
        process: trio.Process = await nursery.start(
            partial(trio.run_process, command, stdout=-1, capture_stdout=False, check=False)
        )
        try:
            assert process.stdout is not None
            line = b""
            while not line.endswith(b"\n"):
                line += await process.stdout.receive_some()
            yield OtherProcess(process, line.decode().split()[-1])
        except BaseException as exc:
            raised = exc
        nursery.cancel_scope.shield = True
        process.kill()
    if raised is not None:
        raise raised


@asynccontextmanager
async def connected(where: str | trio.abc.Stream, **options: Any) -> AsyncIterator[TrioPieClient]:
    """A client that has authenticated."""
    async with open_client(where, **options) as client:
        await client.authenticate("ada")
        yield client


async def launch(
    client: TrioPieClient, program: str, args: Iterable[str] = (), *, detached: bool = False
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
