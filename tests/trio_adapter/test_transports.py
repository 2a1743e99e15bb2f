"""How a trio client gets to its server, but for TLS: Unix sockets, headers, and what is stuck."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import trio
import trio.testing

from pie_proto import DEFAULT_LIMITS, NEED_DATA
from pie_proto import events as e
from pie_proto.server import ServerConnection
from pie_trio_adapter import ConnectFailed, ConnectionLost, open_client
from tests.serving import serving
from tests.trio_adapter.world import connected, in_trio, launch

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="trio has no Unix sockets there")


@in_trio
async def test_a_unix_socket(tmp_path: Path) -> None:
    with serving(unix_path=tmp_path / "pie.sock") as server:
        async with connected(server.url) as client:
            assert await (await launch(client, "hello")).result() == "done"


@in_trio
async def test_a_unix_socket_where_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(ConnectFailed, match="Has the server been started"):
        async with open_client(f"ws+unix://{tmp_path}/none.sock"):
            pass


@in_trio
async def test_headers_reach_the_server() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    server = ServerConnection(now=0.0)

    async def refuse() -> None:
        while (event := server.next_event()) is NEED_DATA:
            server.receive_data(await theirs.receive_some(), 0.0)
        assert isinstance(event, e.HandshakeReceived)
        assert dict(event.headers)["authorization"] == "Bearer a b"
        server.reject(401, "not you")
        await theirs.send_all(server.data_to_send(now=0.0))
        await theirs.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(refuse)
        with pytest.raises(ConnectFailed, match="not you") as caught:
            async with open_client(ours, headers={"Authorization": "Bearer a b"}):
                pass
    assert caught.value.status == 401


class Stuck(trio.abc.Stream):
    """Takes nothing any more once it is told to, for ever; can still be read."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self.stuck = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self.stuck:
            await trio.sleep_forever()
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self._stream.aclose()


@trio.testing.trio_test
async def test_a_peer_that_ends_and_takes_nothing_is_given_up(
    clock: trio.testing.MockClock,
) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    stuck = Stuck(ours)
    server = ServerConnection(now=0.0)

    async def accept() -> None:
        while server.next_event() is NEED_DATA:
            server.receive_data(await theirs.receive_some(), 0.0)
        server.accept()
        await theirs.send_all(server.data_to_send(now=0.0))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        async with open_client(stuck) as client:
            stuck.stuck = True
            nursery.start_soon(ask, client.authenticate)
            await trio.testing.wait_all_tasks_blocked()
            await theirs.send_eof()
            started = trio.current_time()
        assert trio.current_time() - started <= 2 * DEFAULT_LIMITS.close_timeout


async def ask(authenticate: object) -> None:
    with pytest.raises(ConnectionLost):
        await authenticate("ada")  # type: ignore[operator]
