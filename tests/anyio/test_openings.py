"""What is asked where the stream is opened by the caller's own function, or through a proxy."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from anyio.abc import ByteStream

from pie_anyio import ConnectFailed, PieClient
from tests.anyio.proxies import TunnelProxy, running
from tests.anyio.world import SOON
from tests.families.listener import Listener, http, listening, saying

pytestmark = pytest.mark.anyio


class Dial:
    """Opens streams to a listener, whatever the URI says; counts them."""

    def __init__(self, listener: Listener, *, fails: tuple[int, Exception] | None = None) -> None:
        self.count = 0
        self._port = int(listener.uri.rpartition(":")[2])
        self._fails = fails

    async def __call__(self) -> ByteStream:
        self.count += 1
        if self._fails is not None and self.count == self._fails[0]:
            raise self._fails[1]
        return await anyio.connect_tcp("127.0.0.1", self._port)


@pytest.mark.parametrize(
    ("uri", "options", "asked"),
    [
        ("ws://pie.test", {}, ["/", "/v1/ws"]),
        ("ws://pie.test/v1/ws", {}, ["/v1/ws"]),
        ("ws://pie.test", {"dialect": "process"}, ["/v1/ws"]),
    ],
    ids=["no path", "a path", "a dialect"],
)
async def test_a_stream_is_opened_for_every_request_and_no_other(
    uri: str, options: dict[str, Any], asked: list[str]
) -> None:
    with anyio.fail_after(SOON):
        async with listening({"/v1/ws": saying()}) as listener:
            dial = Dial(listener)
            async with PieClient(uri, connect=dial, **options):
                assert dial.count == len(asked)
            await listener.nobody_left()
    assert listener.asked == [f"GET {target} HTTP/1.1" for target in asked]
    assert {headers["host"] for headers in listener.headers} == {"pie.test"}


@pytest.mark.parametrize("status", [200, 401, 500])
async def test_where_the_root_says_anything_else_no_second_stream_is_opened(status: int) -> None:
    with anyio.fail_after(SOON):
        async with listening({"/": http(status, "no"), "/v1/ws": saying()}) as listener:
            dial = Dial(listener)
            with pytest.raises(ConnectFailed, match=f"HTTP {status}"):
                async with PieClient("ws://pie.test", connect=dial):
                    pytest.fail("it connected")
    assert dial.count == 1


@pytest.mark.parametrize("time", [1, 2])
@pytest.mark.parametrize("raised", [ConnectFailed("no way there", status=404), KeyError("mine")])
async def test_what_opening_a_stream_raises_arrives_as_it_is_and_leads_nowhere(
    time: int, raised: Exception
) -> None:
    with anyio.fail_after(SOON):
        async with listening({"/v1/ws": saying()}) as listener:
            dial = Dial(listener, fails=(time, raised))
            with pytest.raises(type(raised)) as caught:
                async with PieClient("ws://pie.test", connect=dial):
                    pytest.fail("it connected")
            await listener.nobody_left()
    assert caught.value is raised
    assert dial.count == time


async def test_a_proxy_that_finds_nothing_is_asked_once() -> None:
    answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 12\r\n\r\nno such host"
    with anyio.fail_after(SOON):
        async with running(TunnelProxy(0, answer)) as proxy:
            with pytest.raises(ConnectFailed, match="no such host") as caught:
                async with PieClient("ws://pie.test", proxy=proxy.uri):
                    pytest.fail("it connected")
    assert caught.value.status == 404
    assert len(proxy.asked) == 1


async def test_behind_a_proxy_the_second_path_is_asked_for_through_it() -> None:
    with anyio.fail_after(SOON):
        async with listening({"/v1/ws": saying()}) as listener:
            port = int(listener.uri.rpartition(":")[2])
            async with running(TunnelProxy(port)) as proxy:
                async with PieClient("ws://pie.test", proxy=proxy.uri) as client:
                    assert client.is_connected
                await listener.nobody_left()
    assert listener.asked == ["GET / HTTP/1.1", "GET /v1/ws HTTP/1.1"]
    assert len(proxy.asked) == 2
