"""The connection is lost: everyone who waits is told who and why, after what had been received."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from pie_proto import Limits
from pie_trio_adapter import Closer, ConnectFailed, ConnectionLost, Event, open_client
from tests.programs import component
from tests.trio_adapter.scripted import scripted
from tests.trio_adapter.world import SOON, connected, in_trio, other_process


@in_trio
async def test_every_waiter_ends_with_who_and_why() -> None:
    errors: dict[str, ConnectionLost] = {}

    async def expect_loss(what: str, call: Callable[[], Awaitable[object]]) -> None:
        with pytest.raises(ConnectionLost) as caught:
            await call()
        errors[what] = caught.value

    limits = Limits(close_timeout=10 * SOON)
    async with other_process() as server, connected(server.url, limits=limits) as client:
        program_hash = await client.upload_program(component("echo"))
        receiving, iterating, waiting = [
            await client.launch_instance(program_hash) for _ in range(3)
        ]

        async def iterate() -> None:
            async for _ in iterating:
                pass

        server.stop()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect_loss, "receive", receiving.receive)
            nursery.start_soon(expect_loss, "async for", iterate)
            nursery.start_soon(expect_loss, "result", waiting.result)
            nursery.start_soon(expect_loss, "request", lambda: client.query("unknown", ""))
            nursery.start_soon(
                expect_loss, "upload", lambda: receiving.upload_blob(bytes(30_000_000))
            )
            await trio.testing.wait_all_tasks_blocked()
            await server.kill()
        await expect_loss("afterwards", client.ping)
        with trio.fail_after(SOON):
            await client.aclose()
    assert len({id(error) for error in errors.values()}) == 6
    for error in errors.values():
        assert error.by is not Closer.LOCAL


@in_trio
async def test_events_already_received_are_delivered_first() -> None:
    async with scripted() as (server, client):
        instance = await client.launch_instance("0" * 64)
        for number in range(20):
            await instance.send(str(number))
        await trio.testing.wait_all_tasks_blocked()
        await server.stream.aclose()
        with pytest.raises(ConnectionLost):
            await client.ping()
        for number in range(20):
            assert await instance.receive() == (Event.Message, f"echo: {number}")
        with pytest.raises(ConnectionLost):
            await instance.receive()
        with pytest.raises(ConnectionLost):
            instance.receive_nowait()
        with pytest.raises(ConnectionLost):
            await instance.send("x")


class Reset(trio.abc.Stream):
    """A stream on which something strikes when it is told to."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self.strike: BaseException | None = None

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        data = await self._stream.receive_some(max_bytes)
        if self.strike is not None:
            raise self.strike
        return data

    async def send_all(self, data: bytes | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


async def resettable(url: str) -> Reset:
    host, port = url.removeprefix("ws://").split(":")
    return Reset(await trio.open_tcp_stream(host, int(port)))


@in_trio
async def test_what_the_network_says_is_told(url: str) -> None:
    for reset in (
        ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
        trio.BrokenResourceError("reset by peer"),
    ):
        stream = await resettable(url)
        async with connected(stream) as client:
            stream.strike = reset
            with pytest.raises(ConnectionLost, match="reset by peer") as caught:
                await client.ping()
            assert caught.value.by is Closer.TRANSPORT
            assert caught.value.__cause__ is reset


@in_trio
async def test_a_fault_of_the_streams_is_logged_and_nobody_hangs(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    stream = await resettable(url)
    async with connected(stream) as client:
        stream.strike = ZeroDivisionError("a fault")
        with pytest.raises(ConnectionLost, match="a fault") as caught:
            await client.ping()
        assert caught.value.__cause__ is stream.strike
    assert "fault of the client" in caplog.text


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
@in_trio
async def test_an_interrupt_in_one_of_the_clients_tasks_ends_the_body_and_arrives_as_itself(
    interrupt: type[BaseException], url: str
) -> None:
    stream = await resettable(url)
    with pytest.raises(interrupt) as caught:
        async with connected(stream) as client:
            stream.strike = interrupt()
            with pytest.raises(ConnectionLost):
                await client.ping()
            await trio.sleep_forever()
    assert caught.value is stream.strike


@in_trio
async def test_nothing_listening_is_told_with_the_address() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    await listeners[0].aclose()
    with pytest.raises(ConnectFailed, match="refused") as caught:
        async with open_client(f"ws://127.0.0.1:{port}"):
            pass
    assert f"ws://127.0.0.1:{port}" in str(caught.value)
    assert isinstance(caught.value.__cause__, OSError)


@in_trio
async def test_a_server_of_another_kind_is_shown() -> None:
    async def answer(stream: trio.abc.Stream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 7\r\n\r\nnothing")

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, answer, 0)
        port = listeners[0].socket.getsockname()[1]
        with pytest.raises(ConnectFailed, match=f"ws://127.0.0.1:{port}.*404") as caught:
            async with open_client(f"ws://127.0.0.1:{port}"):
                pass
        assert (caught.value.status, caught.value.body) == (404, "nothing")
        ours, theirs = trio.testing.memory_stream_pair()
        nursery.start_soon(answer, theirs)
        with pytest.raises(ConnectFailed, match="404"):
            async with open_client(ours):
                pass
        nursery.cancel_scope.cancel()
