"""After any cancellation the connection is right: nothing lost, nothing doubled."""

from __future__ import annotations

from contextlib import suppress

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import ByteStream

from pie_anyio import ConnectionLost, Event, PieClient, UploadFailed
from pie_anyio.server import serve
from pie_proto import hash_of
from tests.anyio.world import World, connected, launch, read_until
from tests.programs import component

pytestmark = pytest.mark.anyio


class Stop:
    """Cancels a scope from within a progress callback, once so much is sent."""

    def __init__(self, scope: anyio.CancelScope, after: int) -> None:
        self._scope = scope
        self._after = after

    def __call__(self, sent: int, size: int) -> None:
        if sent >= self._after:
            self._scope.cancel()


async def check(client: PieClient) -> None:
    """The next upload, launch, recv and ping are right."""
    await client.ping()
    instance = await launch(client, "blob_back")
    blob = bytes(range(256)) * 3000
    await instance.upload_blob(blob)
    _, back = await read_until(instance, Event.Blob)
    assert back == blob
    await instance.terminate()
    assert [pair async for pair in instance] == [(Event.Aborted, "Signal termination")]


@pytest.mark.parametrize("after", [0, 1, 1_000_000, 2_999_999])
async def test_an_upload_of_a_program_cancelled_half_way_leaves_the_slot_free(
    after: int, world: World
) -> None:
    async with world() as (_, client):
        for _ in range(3):
            with anyio.CancelScope() as scope:
                await client.upload_program(bytes(3_000_000), progress=Stop(scope, after))
            assert scope.cancelled_caught
        await check(client)


@pytest.mark.parametrize("after", [0, 1_000_000])
async def test_an_upload_of_a_blob_cancelled_half_way_can_be_done_again(
    after: int, world: World
) -> None:
    blob = bytes(1_500_000)
    async with world() as (_, client):
        instance = await launch(client, "blob_back")
        with anyio.CancelScope() as scope:
            await instance.upload_blob(blob, progress=Stop(scope, after))
        assert scope.cancelled_caught
        await instance.upload_blob(blob)
        before, back = await read_until(instance, Event.Blob)
        assert before == []
        assert back == blob
        await check(client)


async def test_a_blob_for_an_instance_that_ended_half_way_can_be_sent_to_another(
    world: World,
) -> None:
    blob = bytes(1_900_000)
    async with world() as (_, client):
        first = await launch(client, "blob_back")
        second = await launch(client, "blob_back")
        async with anyio.create_task_group() as tasks:

            def terminate_first(sent: int, size: int) -> None:
                if 0 < sent < size:
                    tasks.start_soon(first.terminate)

            # The server may have had the whole of it before the instance was gone.
            with suppress(UploadFailed):
                await first.upload_blob(blob, progress=terminate_first)
        await second.upload_blob(blob)
        _, back = await read_until(second, Event.Blob)
        assert back == blob


async def test_a_cancelled_recv_loses_no_event(world: World) -> None:
    async with world() as (_, client):
        instance = await launch(client, "echo")
        got: list[object] = []
        for number in range(30):
            await instance.send(str(number))
            with anyio.move_on_after(0):
                got.append((await instance.recv())[1])
            async with anyio.create_task_group() as tasks:

                async def receive() -> None:
                    got.append((await instance.recv())[1])

                tasks.start_soon(receive)
                for _ in range(number % 5):
                    await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
        while len(got) < 30:
            got.append((await instance.recv())[1])
        assert got == [f"echo: {number}" for number in range(30)]


@pytest.mark.parametrize("steps", range(12))
async def test_an_opening_cancelled_at_any_step_leaves_no_stream_open(steps: int) -> None:
    streams: list[ByteStream] = []

    async with serve() as server:

        async def connect() -> ByteStream:
            streams.append(await server.connect())
            return streams[-1]

        async def live() -> None:
            async with PieClient(server.url, connect=connect):
                await anyio.sleep_forever()

        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(live)
                for _ in range(steps):
                    await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
        for stream in streams:
            with pytest.raises(anyio.ClosedResourceError):
                await stream.send(b"x")


@pytest.mark.parametrize("steps", range(0, 12, 2))
async def test_a_cancelled_launch_leaves_no_instance_attached(world: World, steps: int) -> None:
    async with world() as (_, client):
        program_hash = await client.upload_program(component("echo"))

        async def launch_for_good() -> None:
            instance = await client.launch_instance(program_hash)
            with anyio.CancelScope(shield=True):
                await instance.terminate()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(launch_for_good)
            for _ in range(steps):
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        await check(client)
        with anyio.fail_after(10):
            while any(info.status == "Attached" for info in await client.list_instances()):
                await anyio.lowlevel.checkpoint()


async def test_a_cancelled_detached_launch_leaves_the_instance_to_itself(world: World) -> None:
    async with world() as (_, client):
        program_hash = await client.upload_program(component("echo"))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.launch_instance, program_hash, (), True)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        await check(client)


@pytest.mark.parametrize("steps", range(0, 8, 2))
async def test_a_cancelled_request_is_answered_to_nobody(world: World, steps: int) -> None:
    async with world() as (_, client):
        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(client.ping)
            for _ in range(steps):
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        assert await client.program_exists(hash_of(b"nothing of the kind")) is False
        await check(client)


async def test_a_cancelled_authentication_closes_the_connection(world: World) -> None:
    async with world() as (server, _), PieClient(server.url) as client:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.authenticate, "ada")
            while not client.statistics().requests_sent:
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        with pytest.raises(ConnectionLost, match="this side"):
            await client.ping()


async def test_what_is_cancelled_before_it_begins_sends_nothing(world: World) -> None:
    async with world() as (server, _), PieClient(server.url) as client:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await client.authenticate("ada")
        assert scope.cancelled_caught
        assert client.statistics().requests_sent == 0
        await client.authenticate("joe")
        await client.ping()


async def test_a_terminate_is_sent_though_it_was_cancelled_before(world: World) -> None:
    async with world() as (_, client):
        instance = await launch(client, "echo")
        with anyio.CancelScope() as scope:
            scope.cancel()
            await instance.terminate()
        assert scope.cancelled_caught
        assert [pair async for pair in instance] == [(Event.Aborted, "Signal termination")]


async def test_a_block_that_is_cancelled_can_still_say_good_bye_under_a_shield(
    world: World,
) -> None:
    heard: list[object] = []
    async with world() as (server, _):
        with anyio.CancelScope() as scope:
            async with connected(server) as client:
                instance = await launch(client, "echo")
                scope.cancel()
                with anyio.CancelScope(shield=True):
                    await instance.send("good-bye")
                    heard.append(await instance.recv())
                    await client.ping()
                    heard.append("pong")
    # Looked at out here: what the block raises gives way to its cancellation.
    assert heard == [(Event.Message, "echo: good-bye"), "pong"]


async def test_a_cancelled_close_closes_all_the_same(world: World) -> None:
    async with world() as (server, _), connected(server) as client:
        instance = await launch(client, "echo")
        with anyio.CancelScope() as scope:
            scope.cancel()
            await client.aclose()
        assert scope.cancelled_caught
        assert not client.is_connected
        with pytest.raises(ConnectionLost, match="this side"):
            await client.ping()
        with pytest.raises(ConnectionLost, match="this side"):
            await instance.recv()


async def test_a_cancelled_send_sends_nothing(world: World) -> None:
    async with world() as (_, client):
        instance = await launch(client, "echo")
        with anyio.CancelScope() as scope:
            scope.cancel()
            await instance.send("never")
        await instance.send("now")
        assert await instance.recv() == (Event.Message, "echo: now")
