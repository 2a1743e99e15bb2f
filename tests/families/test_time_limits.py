"""Time limits and cancellation end a call at once, also while a thread works for it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
import trio

from pie_anyio import ConnectionLost
from pie_anyio.server import serve
from pie_anyio.threads import in_thread as in_anyio_thread
from pie_proto import hash_of
from pie_trio_adapter.threads import in_thread as in_trio_thread
from tests.anyio.test_authentication import CLOSED
from tests.families.world import SOON, client_of
from tests.programs import component

pytestmark = pytest.mark.anyio

PROMPTLY = 20
"""How long ending a call may take, in seconds: what it waits for would take `SOON`."""


class Gate:
    """Where a thread waits, until it is let through."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.open = threading.Event()
        self.passed = threading.Event()

    def wait(self) -> None:
        self.reached.set()
        assert self.open.wait(SOON)
        self.passed.set()


class Token:
    """A security token that waits to be touched."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def sign(self, challenge: bytes) -> bytes:
        self._gate.wait()
        return bytes(64)


class SlowPath(os.PathLike[str]):
    """The path of a file on a drive that does not answer."""

    def __init__(self, path: Path, gate: Gate) -> None:
        self._path = path
        self._gate = gate

    def __fspath__(self) -> str:
        self._gate.wait()
        return str(self._path)


async def cancelled_at(gate: Gate, call: Callable[[], Awaitable[object]]) -> None:
    """Cancel a call once a thread of its own waits at the gate; it has to end at once."""
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:

            async def cancel() -> None:
                while not gate.reached.is_set():
                    await anyio.lowlevel.checkpoint()
                scope.deadline = anyio.current_time()

            tasks.start_soon(cancel)
            await call()
    assert scope.cancelled_caught
    assert not gate.open.is_set()


async def until_set(event: threading.Event) -> None:
    while not event.is_set():
        await anyio.lowlevel.checkpoint()


def in_thread_of(driver: str) -> Callable[[Callable[[], Any]], Awaitable[Any]]:
    return in_trio_thread if driver == "trio-adapter" else in_anyio_thread


async def test_a_call_that_signs_ends_at_once_and_its_connection_with_it(driver: str) -> None:
    gate = Gate()
    with anyio.fail_after(PROMPTLY):
        async with serve(**CLOSED) as server, client_of(driver, server.url) as client:
            await cancelled_at(gate, lambda: client.authenticate("ada", Token(gate)))
            with pytest.raises(ConnectionLost):
                await client.ping()
            gate.open.set()
            await until_set(gate.passed)


async def test_a_call_that_opens_a_file_ends_at_once_and_the_next_is_right(
    driver: str, tmp_path: Path
) -> None:
    path = tmp_path / "program.wasm"
    path.write_bytes(component("blob_back"))
    gate = Gate()
    with anyio.fail_after(PROMPTLY):
        async with serve() as server, client_of(driver, server.url) as client:
            await client.authenticate("ada")
            slow = SlowPath(path, gate)
            await cancelled_at(gate, lambda: client.upload_program(slow))
            program_hash = await client.upload_program(path)
            instance = await client.launch_instance(program_hash)
            blob_gate = Gate()
            blob = SlowPath(path, blob_gate)
            await cancelled_at(blob_gate, lambda: instance.upload_blob(blob))
            await instance.upload_blob(b"whole")
            assert (await instance.recv())[1] == b"whole"
            gate.open.set()
            blob_gate.open.set()
            await until_set(gate.passed)
            await until_set(blob_gate.passed)


@pytest.mark.parametrize("kind", ["file", "bytes"])
async def test_a_call_that_hashes_ends_at_once(driver: str, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "large.bin"
    path.touch()
    os.truncate(path, 1 << 40)
    with anyio.fail_after(PROMPTLY):
        async with serve() as server, client_of(driver, server.url) as client:
            await client.authenticate("ada")
            with anyio.move_on_after(0.05) as scope:
                if kind == "file":
                    await client.upload_program(path)
                else:
                    for _ in range(1000):  # one may be faster than that
                        await client.upload_program(bytes(200_000_000))
            assert scope.cancelled_caught
            await client.ping()


async def test_a_read_that_writes_a_blob_ends_at_once_and_the_next_gives_the_blob(
    driver: str, tmp_path: Path
) -> None:
    blob = bytes(range(256)) * 4000
    with anyio.fail_after(SOON):
        async with serve() as server, client_of(driver, server.url) as client:
            await client.authenticate("ada")
            program_hash = await client.upload_program(component("blob_back"))
            instance = await client.launch_instance(program_hash)
            instance.save_blobs(tmp_path)
            await instance.upload_blob(blob)
            disk: Any = instance._blobs._closing  # type: ignore[union-attr]
            for _ in range(3):
                with disk:  # it does not answer, for whoever writes a piece
                    with anyio.move_on_after(0.1) as scope:
                        await instance.recv()
                    assert scope.cancelled_caught
            event, path = await instance.recv()
            assert (event.name, path) == ("Blob", str(tmp_path / hash_of(blob)))
            assert os.listdir(tmp_path) == [hash_of(blob)]  # noqa: PTH208
    assert (tmp_path / hash_of(blob)).read_bytes() == blob


async def test_many_abandoned_calls_leave_room_for_the_next(driver: str) -> None:
    in_thread = in_thread_of(driver)
    gates = [Gate() for _ in range(60)]
    limiter: Any = (
        trio.to_thread.current_default_thread_limiter()
        if driver == "trio-adapter"
        else anyio.to_thread.current_default_thread_limiter()
    )
    try:
        with anyio.fail_after(SOON):
            for gate in gates:
                await cancelled_at(gate, lambda gate=gate: in_thread(gate.wait))  # type: ignore[misc]
            assert await in_thread(lambda: 5) == 5
            assert limiter.borrowed_tokens == 0
    finally:
        for gate in gates:
            gate.open.set()
    with anyio.fail_after(SOON):
        for gate in gates:
            await until_set(gate.passed)


async def test_what_a_thread_raises_is_raised_where_it_is_waited_for(driver: str) -> None:
    with pytest.raises(ZeroDivisionError):
        await in_thread_of(driver)(lambda: 1 // 0)


async def test_a_call_that_is_cancelled_before_it_begins_starts_no_thread(driver: str) -> None:
    begun: list[int] = []
    with anyio.CancelScope() as scope:
        scope.cancel()
        await in_thread_of(driver)(lambda: begun.append(1))
    assert scope.cancelled_caught
    assert await in_thread_of(driver)(lambda: 5) == 5
    assert begun == []


HANGS = """
import anyio, sys, threading
from pie_anyio.server import serve
from pie_proto import hash_of
from tests.anyio.test_authentication import CLOSED
from tests.families.world import client_of

class Token:
    def sign(self, challenge):
        signing.set()
        threading.Event().wait()

signing = threading.Event()

async def main():
    async with serve(**CLOSED) as server, client_of(sys.argv[1], server.url) as client:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.authenticate, "ada", Token())
                while not signing.is_set():
                    await anyio.sleep(0)
                scope.cancel()
    print("abandoned", flush=True)

anyio.run(main, backend="asyncio" if sys.argv[1] == "asyncio" else "trio")
"""


def test_a_thread_that_never_ends_does_not_keep_the_process_from_exiting(driver: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HANGS, driver],
        cwd=Path(__file__).parents[2],
        timeout=SOON,
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "abandoned\n"
