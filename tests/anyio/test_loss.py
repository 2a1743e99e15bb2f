"""The connection is lost: everyone who waits is told who and why, after what had been received."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable

import anyio
import anyio.abc
import anyio.lowlevel
import pytest

from pie_anyio import ConnectionLost, Event, Limits
from pie_proto import DEFAULT_LIMITS, Closer
from tests.anyio.world import SOON, World, connected, launch, other_process
from tests.programs import component

pytestmark = pytest.mark.anyio


async def test_every_waiter_ends_with_who_and_why() -> None:
    errors: dict[str, ConnectionLost] = {}

    async def expect_loss(what: str, call: Callable[[], Awaitable[object]]) -> None:
        with pytest.raises(ConnectionLost) as caught:
            await call()
        errors[what] = caught.value

    async with other_process() as server, connected(server) as client:
        program_hash = await client.upload_program(component("echo"))
        receiving, iterating, waiting = [
            await client.launch_instance(program_hash) for _ in range(3)
        ]

        async def iterate() -> None:
            async for _ in iterating:
                pass

        async def upload() -> None:
            await receiving.upload_blob(bytes(30_000_000))

        server.stop()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(expect_loss, "recv", receiving.recv)
            tasks.start_soon(expect_loss, "async for", iterate)
            tasks.start_soon(expect_loss, "result", waiting.result)
            tasks.start_soon(expect_loss, "request", lambda: client.query("unknown", ""))
            tasks.start_soon(expect_loss, "upload", upload)
            await anyio.wait_all_tasks_blocked()
            await server.kill()
        await expect_loss("afterwards", client.ping)
    assert sorted(errors) == sorted(
        ["recv", "async for", "result", "request", "upload", "afterwards"]
    )
    assert len({id(error) for error in errors.values()}) == len(errors)
    for error in errors.values():
        assert error.by is not Closer.LOCAL
        assert "the other side" in str(error) or "the network" in str(error)


class Reset(anyio.abc.ByteStream):
    """A stream that the network resets when it is told to."""

    def __init__(self, stream: anyio.abc.ByteStream) -> None:
        self._stream = stream
        self.reset = False

    async def receive(self, max_bytes: int = 65536) -> bytes:
        data = await self._stream.receive(max_bytes)
        if self.reset:
            raise anyio.BrokenResourceError from ConnectionResetError(
                errno.ECONNRESET, "Connection reset by peer"
            )
        return data

    async def send(self, item: bytes) -> None:
        await self._stream.send(item)

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()


async def test_what_the_network_says_is_told() -> None:
    streams: list[Reset] = []
    async with other_process() as server:

        async def connect() -> Reset:
            host, port = server.url.removeprefix("ws://").split(":")
            streams.append(Reset(await anyio.connect_tcp(host, int(port))))
            return streams[0]

        async with connected(server, connect=connect) as client:
            streams[0].reset = True
            with pytest.raises(ConnectionLost, match="reset by peer") as caught:
                await client.ping()
            assert caught.value.by is Closer.TRANSPORT
            assert isinstance(caught.value.__cause__, anyio.BrokenResourceError)


async def test_the_block_is_left_at_once_when_the_server_is_gone() -> None:
    limits = Limits(close_timeout=10 * SOON)
    async with other_process() as server, connected(server, limits=limits) as client:
        instance = await launch(client, "echo")
        server.stop()
        async with anyio.create_task_group() as tasks:

            async def upload() -> None:
                with pytest.raises(ConnectionLost):
                    await instance.upload_blob(bytes(30_000_000))

            tasks.start_soon(upload)
            await anyio.wait_all_tasks_blocked()
            await server.kill()
        with anyio.fail_after(SOON):
            await client.aclose()


async def test_events_already_received_are_delivered_first() -> None:
    async with other_process() as server, connected(server) as client:
        instance = await launch(client, "echo")
        for number in range(20):
            await instance.send(str(number))
        each = DEFAULT_LIMITS.event_cost_bytes + len("echo: 0")
        while client.statistics().unread_bytes < 20 * each:
            await anyio.lowlevel.checkpoint()
        await client.ping()
        await server.kill()
        with pytest.raises(ConnectionLost):
            await client.ping()
        for number in range(20):
            assert await instance.recv() == (Event.Message, f"echo: {number}")
        with pytest.raises(ConnectionLost):
            await instance.recv()
        with pytest.raises(ConnectionLost):
            instance.recv_nowait()
        with pytest.raises(ConnectionLost):
            await instance.send("x")


class Stuck(anyio.abc.ByteStream):
    """Takes nothing any more once it is told to, for ever; and then ends what can be read."""

    def __init__(self, stream: anyio.abc.ByteStream) -> None:
        self._stream = stream
        self._stuck = anyio.Event()
        self._tried = anyio.Event()

    def stick(self) -> None:
        self._stuck.set()

    async def receive(self, max_bytes: int = 65536) -> bytes:
        received: list[bytes] = []

        async def receive() -> None:
            received.append(await self._stream.receive(max_bytes))
            tasks.cancel_scope.cancel()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receive)
            await self._tried.wait()
            tasks.cancel_scope.cancel()
        if not received:
            raise anyio.EndOfStream
        return received[0]

    async def send(self, item: bytes) -> None:
        if self._stuck.is_set():
            self._tried.set()
            await anyio.sleep_forever()
        await self._stream.send(item)

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()


async def test_a_peer_that_ends_and_takes_nothing_is_given_up(world: World) -> None:
    async with world() as (server, _):
        streams: list[Stuck] = []

        async def connect() -> Stuck:
            streams.append(Stuck(await server.connect()))
            return streams[0]

        limits = Limits(close_timeout=0.1)
        async with connected(server, connect=connect, limits=limits) as client:
            streams[0].stick()
            with pytest.raises(ConnectionLost):
                await client.ping()
            with anyio.fail_after(SOON):
                await client.aclose()
