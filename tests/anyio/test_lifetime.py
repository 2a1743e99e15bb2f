"""How a client begins and ends: whose exception arrives, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from pie_anyio import ConnectFailed, ConnectionLost, InstanceEnded, LocalProtocolError, PieClient
from pie_anyio.server import Server, serve
from tests.anyio.world import SOON, connected, launch, other_process, world

pytestmark = pytest.mark.anyio


class Mine(Exception):
    """An exception of the user's own."""


async def test_an_exception_of_the_users_arrives_as_itself() -> None:
    async with world() as (server, _):
        with pytest.raises(Mine) as caught:
            async with connected(server):
                raise Mine
    assert type(caught.value) is Mine


async def test_it_arrives_as_itself_while_the_connection_is_being_lost() -> None:
    with pytest.raises(Mine) as caught:
        async with other_process() as server, connected(server):
            await server.kill()
            raise Mine
    assert type(caught.value) is Mine
    with pytest.raises(Mine) as caught:
        async with other_process() as server, connected(server) as client:
            await server.kill()
            with pytest.raises(ConnectionLost):
                await client.ping()
            raise Mine
    assert type(caught.value) is Mine


async def test_an_interrupt_in_the_body_arrives_as_itself() -> None:
    async with world() as (server, _):
        for interrupt in (KeyboardInterrupt, SystemExit):
            with pytest.raises(interrupt) as caught:
                async with connected(server):
                    raise interrupt
            assert type(caught.value) is interrupt


class Interrupted(anyio.abc.ByteStream):
    """A stream on which an interrupt strikes, as it may in whatever task is running."""

    def __init__(self, stream: anyio.abc.ByteStream, interrupt: type[BaseException]) -> None:
        self._stream = stream
        self._interrupt = interrupt
        self.strike = False

    async def receive(self, max_bytes: int = 65536) -> bytes:
        data = await self._stream.receive(max_bytes)
        if self.strike:
            raise self._interrupt
        return data

    async def send(self, item: bytes) -> None:
        await self._stream.send(item)

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()


@pytest.mark.parametrize("anyio_backend", ["trio"])
@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
async def test_an_interrupt_in_one_of_the_clients_tasks_ends_the_body_and_arrives_as_itself(
    interrupt: type[BaseException], anyio_backend: str
) -> None:
    async def connect() -> Interrupted:
        streams.append(Interrupted(await anyio.connect_tcp("127.0.0.1", server.port), interrupt))
        return streams[0]

    streams: list[Interrupted] = []
    async with world() as (server, _):
        with pytest.raises(interrupt) as caught:
            async with PieClient(server.url, connect=connect) as client:
                await client.authenticate("ada")
                streams[0].strike = True
                with pytest.raises(ConnectionLost):
                    await client.ping()
                await anyio.sleep_forever()
        assert type(caught.value) is interrupt


async def test_the_loss_of_the_connection_does_not_cancel_the_body() -> None:
    reached = False
    async with other_process() as server, connected(server) as client:
        await server.kill()
        with pytest.raises(ConnectionLost):
            await client.ping()
        await anyio.lowlevel.checkpoint()
        reached = True
    assert reached


async def test_an_outer_cancellation_leaves_through_the_client_as_itself() -> None:
    async with world() as (server, _):
        with anyio.CancelScope() as scope:
            async with connected(server) as client:
                instance = await launch(client, "echo")
                scope.cancel()
                await instance.recv()
        assert scope.cancelled_caught
        with pytest.raises(ConnectionLost, match="this side"):
            await client.ping()


async def test_a_task_group_inside_the_client_keeps_its_own_exceptions() -> None:
    async with world() as (server, _):
        with pytest.raises(ExceptionGroup) as caught:
            async with connected(server) as client, anyio.create_task_group() as tasks:
                instance = await launch(client, "echo")
                tasks.start_soon(instance.recv)
                await anyio.wait_all_tasks_blocked()
                raise Mine
    assert [type(exc) for exc in caught.value.exceptions] == [Mine]


async def test_closing_wakes_everyone_who_waits() -> None:
    async with world() as (server, _):
        async with PieClient(server.url) as client, anyio.create_task_group() as tasks:
            await client.authenticate("ada")
            instance = await launch(client, "echo")
            ended: list[type[BaseException]] = []

            async def receive() -> None:
                with pytest.raises(ConnectionLost, match="this side") as caught:
                    await instance.recv()
                ended.append(type(caught.value))

            async def query() -> None:
                with pytest.raises(ConnectionLost, match="this side") as caught:
                    await client.query("a subject that is never answered", "")
                ended.append(type(caught.value))

            tasks.start_soon(receive)
            tasks.start_soon(query)
            await anyio.wait_all_tasks_blocked()
            with anyio.fail_after(SOON):
                await client.aclose()
                await client.aclose()
    assert ended == [ConnectionLost, ConnectionLost]


async def test_a_message_accepted_before_closing_is_sent() -> None:
    async with world() as (server, client):
        instance = await launch(client, "reply")
        await instance.send("last words")
        await client.aclose()
        async with connected(server) as other:
            again = await other.attach_instance(instance.id)
            # The program returns the first message that it gets: this one, if that was lost.
            with suppress(InstanceEnded):
                await again.send("words too late")
            assert await again.result() == "last words"


async def test_closing_is_bounded_when_the_peer_is_deaf() -> None:
    async def swallow(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await anyio.sleep_forever()

    from pie_anyio import Limits

    with anyio.fail_after(SOON):
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        async with listener, anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, swallow)
            with pytest.raises(ConnectFailed, match="not answered"):
                async with PieClient(
                    f"ws://127.0.0.1:{port}", limits=Limits(handshake_timeout=0.05)
                ):
                    pass
            tasks.cancel_scope.cancel()


async def test_nothing_listening_is_told_with_the_address() -> None:
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    await listener.aclose()
    with anyio.fail_after(SOON), pytest.raises(ConnectFailed) as caught:
        async with PieClient(f"ws://127.0.0.1:{port}"):
            pass
    assert f"ws://127.0.0.1:{port}" in str(caught.value)
    assert "refused" in str(caught.value)
    assert caught.value.__cause__ is not None


async def test_a_web_server_that_is_no_pie_server_is_shown() -> None:
    async def answer(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 13\r\n\r\nnothing here\n")

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    with anyio.fail_after(SOON):
        async with listener, anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, answer)
            with pytest.raises(ConnectFailed, match="404") as caught:
                async with PieClient(f"ws://127.0.0.1:{port}/there"):
                    pass
            tasks.cancel_scope.cancel()
    assert caught.value.status == 404
    assert "nothing here" in caught.value.body


@pytest.mark.parametrize("greeting", [b"SSH-2.0-OpenSSH_9.2\r\n", b"\x15\x03\x03\x00\x02\x02\x46"])
async def test_a_server_of_another_kind_is_a_connection_that_failed(greeting: bytes) -> None:
    async def answer(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(greeting)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    with anyio.fail_after(SOON):
        async with listener, anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, answer)
            with pytest.raises(ConnectFailed, match=f"ws://127.0.0.1:{port}"):
                async with PieClient(f"ws://127.0.0.1:{port}"):
                    pass
            tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("http://127.0.0.1:8080", "ws://"),
        ("127.0.0.1:8080", "ws://"),
        ("", "ws://"),
        ("ws://", "no host"),
        ("ws://:8080", "no host"),
        ("ws://127.0.0.1:port", "no valid port"),
        ("ws://127.0.0.1:99999", "no valid port"),
        ("ws://ada:secret@127.0.0.1", "authenticate"),
        ("ws://127.0.0.1/#there", "#fragment"),
        ("ws://127.0.0.1/ü", "ASCII"),
        ("ws://127.0.0.1/a b", "ASCII"),
        ("ws://127.0.0.1/\r\nHost: x", "ASCII"),
    ],
)
async def test_an_odd_uri_is_refused_in_words(uri: str, told: str) -> None:
    with pytest.raises(ValueError, match=told) as caught:
        PieClient(uri)
    assert "secret" not in str(caught.value)


# ------------------------------------------------------------------------ nothing is left behind


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - the entry of the listing itself is gone


async def use(server: Server, how: str) -> None:
    """Use a client and end in one of the ways there are."""
    match how:
        case "normal end":
            async with connected(server) as client:
                await client.ping()
        case "exception":
            with pytest.raises(Mine):
                async with connected(server) as client:
                    await launch(client, "echo")
                    raise Mine
        case "cancellation":
            with anyio.CancelScope() as scope:
                async with connected(server) as client:
                    instance = await launch(client, "loop")
                    scope.cancel()
                    await instance.recv()
        case "refusal":
            with pytest.raises(LocalProtocolError):
                async with PieClient(server.url) as client:
                    await client.ping()


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="descriptors are listed on Linux")
@pytest.mark.parametrize("how", ["normal end", "exception", "cancellation", "refusal"])
async def test_no_task_descriptor_or_thread_is_left(how: str, anyio_backend_name: str) -> None:
    def tasks() -> int:
        if anyio_backend_name == "trio":
            import trio.lowlevel

            return trio.lowlevel.current_statistics().tasks_living
        return len(asyncio.all_tasks())

    with anyio.fail_after(2 * SOON):
        async with serve() as server:
            await use(server, how)  # what is made once and kept, such as worker threads
        await settled(tasks)
        gc.collect()
        before = tasks(), descriptors(), threading.active_count()
        async with serve() as server:
            for _ in range(3):
                await use(server, how)
        await settled(tasks)
        gc.collect()
        assert tasks() <= before[0]
        assert descriptors() <= before[1]
        # asyncio's and trio's worker threads are kept for reuse: no more than were used at once.
        assert threading.active_count() <= before[2] + 4


async def settled(tasks: object) -> None:
    """Let what is already ending end."""
    for _ in range(20):
        await anyio.lowlevel.checkpoint()


# ------------------------------------------------------------ connected here, closed somewhere else


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_client_is_connected_in_one_task_and_closed_in_another(anyio_backend: str) -> None:
    async with world() as (server, _):
        client = PieClient(server.url)
        await asyncio.create_task(client.connect())
        await client.authenticate("ada")
        await asyncio.create_task(client.ping())
        assert client.is_connected
        await asyncio.create_task(client.aclose())
        assert not client.is_connected
        with pytest.raises(ConnectionLost):
            await client.ping()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("what", ["client", "server"])
async def test_a_block_is_entered_in_one_task_and_left_in_another(
    what: str, anyio_backend: str
) -> None:
    # As fixtures of pytest-asyncio do; a task group does not survive it.
    async def enter() -> Server | PieClient:
        return await block.__aenter__()

    async def leave() -> None:
        await block.__aexit__(None, None, None)

    async with serve() as server:
        block = PieClient(server.url) if what == "client" else serve()
        entered = await asyncio.create_task(enter())
        client = entered if isinstance(entered, PieClient) else PieClient(entered.url)
        if what == "server":
            await client.connect()
        await client.authenticate("ada")
        await client.ping()
        await asyncio.create_task(leave())
        with pytest.raises(ConnectionLost):
            await client.ping()
        await client.aclose()


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_on_trio_the_block_is_the_scope(anyio_backend: str) -> None:
    async with world() as (server, _):
        with pytest.raises(LocalProtocolError, match="async with"):
            await PieClient(server.url).connect()


def test_a_starlette_application_holds_a_client_for_its_lifetime() -> None:
    clients: list[PieClient] = []

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with serve() as server:
            client = PieClient(server.url)
            await client.connect()
            await client.authenticate("web")
            app.state.pie = client
            clients.append(client)
            yield
            await client.aclose()

    async def run(request: Request) -> PlainTextResponse:
        client: PieClient = request.app.state.pie
        async with await launch(client, "arguments", [request.query_params["text"]]) as instance:
            return PlainTextResponse(await instance.result())

    app = Starlette(routes=[Route("/run", run)], lifespan=lifespan)
    with TestClient(app) as web:
        assert web.get("/run", params={"text": "hello"}).text == "hello"
        assert web.get("/run", params={"text": "again"}).text == "again"
    assert not clients[0].is_connected
