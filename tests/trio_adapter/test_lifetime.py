"""The block is the client's life: whose exception arrives, and that nothing is left behind."""

from __future__ import annotations

import gc
import os
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trio
import trio.testing

from pie_proto import Limits
from pie_trio_adapter import (
    ConnectionLost,
    Event,
    InstanceEnded,
    LocalProtocolError,
    open_client,
)
from tests.programs import component
from tests.trio_adapter.scripted import Scripted, scripted
from tests.trio_adapter.world import SOON, connected, in_trio, launch, other_process


class Mine(Exception):
    """An exception of the user's own."""


@pytest.mark.parametrize("raised", [Mine, KeyboardInterrupt, SystemExit, StopAsyncIteration])
@in_trio
async def test_what_the_body_raises_arrives_as_itself(
    raised: type[BaseException], url: str
) -> None:
    mine = raised()
    with pytest.raises(raised) as caught:
        async with open_client(url) as client:
            await client.authenticate("ada")
            raise mine
    assert caught.value is mine
    assert not client.is_connected


@in_trio
async def test_it_arrives_as_itself_while_the_connection_is_being_lost() -> None:
    with pytest.raises(Mine):
        async with other_process() as server, connected(server.url) as client:
            await server.kill()
            with pytest.raises(ConnectionLost):
                await client.ping()
            await trio.lowlevel.checkpoint()  # the body is not cancelled
            raise Mine


@in_trio
async def test_an_exception_is_not_hidden_by_a_cancellation(url: str) -> None:
    with trio.CancelScope() as scope, pytest.raises(Mine):
        async with open_client(url):
            scope.cancel()
            raise Mine


@in_trio
async def test_an_outer_cancellation_leaves_through_the_client_as_itself(url: str) -> None:
    with trio.CancelScope() as scope:
        async with connected(url) as client:
            instance = await launch(client, "echo")
            scope.cancel()
            try:
                await instance.receive()
            finally:
                # The connection is there as long as the block: it can be tidied up behind oneself.
                with trio.CancelScope(shield=True):
                    await instance.terminate()
                    assert await instance.receive() == (Event.Aborted, "Signal termination")
    assert scope.cancelled_caught
    with pytest.raises(ConnectionLost, match="this side"):
        await client.ping()


@in_trio
async def test_a_nursery_inside_the_client_keeps_its_own_exceptions(url: str) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with connected(url) as client, trio.open_nursery() as nursery:
            instance = await launch(client, "echo")
            nursery.start_soon(instance.receive)
            await trio.testing.wait_all_tasks_blocked()
            raise Mine
    assert [type(exc) for exc in caught.value.exceptions] == [Mine]


@pytest.fixture
def _pythons_own_handler_of_interrupts() -> Iterator[None]:
    """Trio handles interrupts only where Python's own handler is set; a test runner may set one."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@trio.lowlevel.enable_ki_protection
async def press_control_c() -> None:
    await trio.testing.wait_all_tasks_blocked()
    signal.raise_signal(signal.SIGINT)


@pytest.mark.usefixtures("_pythons_own_handler_of_interrupts")
@pytest.mark.parametrize("leaving", [False, True])
@in_trio
async def test_an_interrupt_from_the_keyboard_arrives_as_itself(leaving: bool) -> None:
    """In the body, and while the block waits for a server that does not answer its Close."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        server = Scripted(theirs)
        nursery.start_soon(server.serve)
        with trio.fail_after(SOON):
            with pytest.raises(KeyboardInterrupt):
                async with connected(ours, limits=Limits(close_timeout=10 * SOON)) as client:
                    nursery.start_soon(press_control_c)
                    if leaving:
                        server.fall_silent()
                    else:
                        await trio.sleep_forever()
        assert not client.is_connected
        nursery.cancel_scope.cancel()


@in_trio
async def test_closing_wakes_everyone_who_waits(url: str) -> None:
    ended = 0

    async def expect_end(call: object) -> None:
        nonlocal ended
        with pytest.raises(ConnectionLost, match="this side"):
            await call()  # type: ignore[operator]
        ended += 1

    async with connected(url) as client, trio.open_nursery() as nursery:
        instance = await launch(client, "echo")
        nursery.start_soon(expect_end, instance.receive)
        nursery.start_soon(expect_end, lambda: client.query("never answered", ""))
        await trio.testing.wait_all_tasks_blocked()
        await client.aclose()
        await client.aclose()
    assert ended == 2


@in_trio
async def test_a_message_accepted_before_closing_is_sent(url: str) -> None:
    async with connected(url) as client:
        instance = await launch(client, "reply")
        await instance.send("last words")
    async with connected(url) as other:
        again = await other.attach_instance(instance.id)
        # The program returns the first message that it gets: this one, if that was lost.
        with suppress(InstanceEnded):
            await again.send("words too late")
        assert await again.result() == "last words"


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("http://127.0.0.1:8080", "ws://"),
        ("ws://ada:secret@127.0.0.1", "authenticate"),
        ("ws://127.0.0.1:99999", "no valid port"),
    ],
)
@in_trio
async def test_an_odd_uri_is_refused_in_words(where: str, told: str) -> None:
    with pytest.raises(ValueError, match=told) as caught:
        async with open_client(where):
            pass
    assert "secret" not in str(caught.value)


@in_trio
async def test_odd_arguments_are_refused_in_words() -> None:
    with pytest.raises(TypeError, match="Stream"):
        async with open_client(17):  # type: ignore[arg-type]
            pass
    with pytest.raises(ValueError, match="a URI says both"):
        async with open_client("ws://127.0.0.1", host="other"):
            pass
    trusting = ssl.create_default_context()
    with pytest.raises(ValueError, match="wss://"):
        async with open_client("ws://127.0.0.1", ssl_context=trusting):
            pass
    for odd, error in (
        ({"target": "/\r\nX: y"}, LocalProtocolError),
        ({"headers": {"X": "a\r\nb"}}, ValueError),
        ({"ssl_context": trusting}, ValueError),
    ):
        ours, theirs = trio.testing.memory_stream_pair()
        with pytest.raises(error):
            async with open_client(ours, **odd):  # type: ignore[arg-type]
                pass
        assert await theirs.receive_some() == b"", "the client closes its stream in any case"


@in_trio
async def test_notices_are_handed_on(caplog: pytest.LogCaptureFixture) -> None:
    told: list[str] = []

    def note(text: str) -> None:
        told.append(text)
        raise Mine

    async with scripted(on_notice=note) as (server, client):
        server.connection.notify("going down at noon")
        await server.send()
        await client.ping()
    assert told == ["going down at noon"]
    assert "going down at noon" in caplog.text


@pytest.mark.parametrize("lockstep", [False, True])
@in_trio
async def test_any_stream_will_do(lockstep: bool) -> None:
    async with scripted(lockstep=lockstep) as (_, client):
        instance = await client.launch_instance("0" * 64)
        for number in range(50):
            await instance.send(str(number))
        for number in range(50):
            assert await instance.receive() == (Event.Message, f"echo: {number}")


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="descriptors are listed on Linux")
@pytest.mark.parametrize("how", ["normal end", "exception", "cancellation"])
@in_trio
async def test_no_task_descriptor_or_thread_is_left(how: str, url: str) -> None:
    def left() -> tuple[int, int, int]:
        gc.collect()
        descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - the entry itself is gone
        tasks = trio.lowlevel.current_statistics().tasks_living
        return tasks, descriptors, threading.active_count()

    async def use() -> None:
        with trio.CancelScope() as scope:
            async with connected(url) as client:
                instance = await launch(client, "echo")
                match how:
                    case "exception":
                        raise Mine
                    case "cancellation":
                        scope.cancel()
                        await instance.receive()
                    case _:
                        await client.ping()

    before = (0, 0, 0)
    for time in range(4):
        if how == "exception":
            with pytest.raises(Mine):
                await use()
        else:
            await use()
        if time == 0:
            before = left()
    after = left()
    assert after[0] <= before[0]
    assert after[1] <= before[1]
    assert after[2] <= before[2] + 2  # trio keeps worker threads for a while


WITHOUT_ANYIO = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"anyio", "wasmtime", "cryptography", "pie_anyio"}:
            raise ModuleNotFoundError(f"{name} is not to be had", name=name)

sys.meta_path.insert(0, Blocker())

import trio
from pie_trio_adapter import open_client

async def main(url, path):
    with trio.fail_after(20):
        async with open_client(url) as client:
            await client.authenticate("ada")
            program_hash = await client.upload_program(path)
            async with await client.launch_instance(program_hash) as instance:
                async for event, data in instance:
                    print(event.name, data.strip())

trio.run(main, *sys.argv[1:])
"""


def test_it_works_where_anyio_is_not(url: str, tmp_path: Path) -> None:
    path = tmp_path / "hello.wasm"
    path.write_bytes(component("hello"))
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT_ANYIO, url, str(path)],
        check=False, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert run.stderr == ""
    assert sorted(run.stdout.splitlines()) == [
        "Completed done", "Stderr a warning", "Stdout hello from pie",
    ]  # fmt: skip
