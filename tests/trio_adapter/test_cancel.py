"""After any cancellation the connection is right: nothing lost, nothing doubled."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import trio
import trio.testing

from pie_trio_adapter import (
    ConnectionLost,
    Event,
    Limits,
    LocalProtocolError,
    TrioPieClient,
    open_client,
)
from tests.programs import component
from tests.trio_adapter.scripted import Scripted
from tests.trio_adapter.world import connected, in_trio, launch, read_until


async def check(client: TrioPieClient) -> None:
    """The next upload, launch, receive and ping are right."""
    await client.ping()
    instance = await launch(client, "blob_back")
    blob = bytes(range(256)) * 3000
    await instance.upload_blob(blob)
    assert (await read_until(instance, Event.Blob))[1] == blob
    await instance.terminate()
    assert [pair async for pair in instance] == [(Event.Aborted, "Signal termination")]


@pytest.mark.parametrize("after", [0, 1, 1_000_000, 2_999_999])
@in_trio
async def test_an_upload_cancelled_half_way_leaves_the_slot_free(after: int, url: str) -> None:
    async with connected(url) as client:
        for _ in range(2):
            with trio.CancelScope() as scope:
                await client.upload_program(
                    bytes(3_000_000),
                    progress=lambda sent, size: scope.cancel() if sent >= after else None,
                )
            assert scope.cancelled_caught
        await check(client)


@in_trio
async def test_an_upload_from_a_file_cancelled_half_way_closes_the_file(
    url: str, tmp_path: Path
) -> None:
    path = tmp_path / "large.bin"
    path.write_bytes(bytes(3_000_000))
    async with connected(url) as client:
        with trio.CancelScope() as scope:
            await client.upload_program(
                path, progress=lambda sent, size: scope.cancel() if sent else None
            )
        assert scope.cancelled_caught
        gc.collect()  # a file left open is a warning, and that an error
        await check(client)


@in_trio
async def test_an_exception_in_the_progress_callback_is_the_callers(url: str) -> None:
    class Enough(Exception):
        pass

    def stop(sent: int, size: int) -> None:
        if sent > 0:
            raise Enough

    async with connected(url) as client:
        with pytest.raises(Enough):
            await client.upload_program(bytes(3_000_000), progress=stop)
        await check(client)


@in_trio
async def test_a_cancelled_receive_loses_no_event(url: str) -> None:
    async with connected(url) as client:
        instance = await launch(client, "echo")
        got: list[object] = []
        for number in range(30):
            await instance.send(str(number))
            with trio.move_on_after(0):
                got.append((await instance.receive())[1])
            async with trio.open_nursery() as nursery:

                async def receive() -> None:
                    got.append((await instance.receive())[1])

                nursery.start_soon(receive)
                for _ in range(number % 5):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
        while len(got) < 30:
            got.append((await instance.receive())[1])
        assert got == [f"echo: {number}" for number in range(30)]


@pytest.mark.parametrize("steps", range(0, 12, 2))
@in_trio
async def test_a_cancelled_launch_leaves_no_instance_attached(url: str, steps: int) -> None:
    async with connected(url) as client:
        program_hash = await client.upload_program(component("echo"))

        async def launch_for_good() -> None:
            instance = await client.launch_instance(program_hash)
            with trio.CancelScope(shield=True):
                await instance.terminate()

        before = {info.id for info in await client.list_instances()}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(launch_for_good)
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        await check(client)
        while any(
            info.status == "Attached" and info.id not in before
            for info in await client.list_instances()
        ):
            await trio.lowlevel.checkpoint()


@in_trio
async def test_what_is_cancelled_before_it_began_sends_nothing(url: str) -> None:
    async with connected(url) as client:
        instance = await launch(client, "echo")
        for call in (
            client.ping,
            lambda: client.launch_instance("0" * 64),
            lambda: client.upload_program(b"x"),
            lambda: instance.send("never"),
            lambda: instance.upload_blob(b"never"),
        ):
            with trio.CancelScope() as scope:
                scope.cancel()
                await call()
            assert scope.cancelled_caught
        assert client.statistics().late_answers == 0
        await instance.send("now")
        assert await instance.receive() == (Event.Message, "echo: now")
        # But for what is the end of something.
        with trio.CancelScope() as scope:
            scope.cancel()
            await instance.terminate()
        assert scope.cancelled_caught
        assert await instance.receive() == (Event.Aborted, "Signal termination")
    async with open_client(url) as client:
        with trio.CancelScope() as scope:
            scope.cancel()
            await client.authenticate("ada")
        with pytest.raises(LocalProtocolError, match="authenticate first"):
            await client.ping()
        await client.authenticate("ada")


@in_trio
async def test_a_cancelled_authentication_closes_the_connection() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    server = Scripted(theirs)
    async with trio.open_nursery() as serving:
        serving.start_soon(server.serve)
        async with open_client(ours, limits=Limits(close_timeout=0.05)) as client:
            server.fall_silent()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.authenticate, "ada")
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
            with pytest.raises(ConnectionLost, match="this side"):
                await client.ping()


@in_trio
async def test_a_cancelled_close_closes_all_the_same(url: str) -> None:
    async with connected(url) as client:
        instance = await launch(client, "echo")
        with trio.CancelScope() as scope:
            scope.cancel()
            await client.aclose()
        assert scope.cancelled_caught
        assert not client.is_connected
        for call in (client.ping, instance.receive, lambda: instance.send("x")):
            with pytest.raises(ConnectionLost, match="this side"):
                await call()
