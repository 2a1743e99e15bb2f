"""What is asked on a stream that the caller has connected: it can be opened once."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from pie_proto.families import FAMILIES
from pie_trio_adapter import ConnectFailed, open_client
from tests.proto.pair import OPEN, wire
from tests.proto.websocket_wire import answer_101, frame
from tests.trio_adapter.world import in_trio

NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 12\r\n\r\nnothing here"


async def asked_on(stream: trio.abc.Stream) -> bytes:
    """The opening request on the other end of a stream."""
    head = b""
    while b"\r\n\r\n" not in head:
        head += await stream.receive_some()
    return head


@pytest.mark.parametrize(
    ("options", "target", "host"),
    [
        ({}, "/", "localhost"),
        ({"target": "/v1/ws"}, "/v1/ws", "localhost"),
        ({"target": "/x?y=1", "host": "pie.test"}, "/x?y=1", "pie.test"),
        ({"dialect": "instance"}, "/", "localhost"),
        ({"dialect": "process-0.3"}, "/", "localhost"),
        ({"dialect": "process"}, "/v1/ws", "localhost"),
        ({"dialect": "process", "target": "/x"}, "/x", "localhost"),
    ],
)
@in_trio
async def test_a_stream_with_nothing_behind_it_is_asked_once_and_closed(
    options: dict[str, Any], target: str, host: str
) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    heads: list[str] = []

    async def refuse() -> None:
        heads.append((await asked_on(theirs)).decode())
        await theirs.send_all(NOT_FOUND)
        # Nothing more is asked, and the client closes it.
        assert await theirs.receive_some() == b""

    async with trio.open_nursery() as nursery:
        nursery.start_soon(refuse)
        with pytest.raises(ConnectFailed, match="listen on /v1/ws") as caught:
            async with open_client(ours, identity="default/ada", **options):
                pytest.fail("it connected")
    assert (caught.value.status, caught.value.body) == (404, "nothing here")
    assert heads[0].startswith(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n")
    assert "\r\nx-pie-identity: default/ada\r\n" in heads[0]


@pytest.mark.parametrize(
    ("family", "answer"),
    [
        ("instance", wire("response", corr_id=1, successful=True, result=OPEN)),
        ("process-0.3", wire("response", corr_id=2, ok=True, result=OPEN)),
        ("process", wire("response", corr_id=2, ok=True, result="Already authenticated")),
    ],
)
@pytest.mark.parametrize("target", [None, "/v1/ws"])
@in_trio
async def test_behind_a_stream_may_be_any_family(
    family: str, answer: bytes, target: str | None
) -> None:
    ours, theirs = trio.testing.memory_stream_pair()

    async def serve() -> None:
        await theirs.send_all(answer_101(await asked_on(theirs)))
        await theirs.receive_some()
        await theirs.send_all(frame(0x82, answer, masked=False))
        await theirs.receive_some()
        await theirs.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        async with open_client(ours, target=target) as client:
            assert client.server is None
            await client.authenticate("ada")
            assert client.server == FAMILIES[family].capabilities


@pytest.mark.parametrize("options", [{"dialect": "pie"}, {"identity": "a/b\n"}])
@in_trio
async def test_a_stream_is_closed_without_a_word_where_arguments_are_odd(
    options: dict[str, Any],
) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    with pytest.raises(ValueError, match=r"no family|identity"):
        async with open_client(ours, **options):
            pytest.fail("it connected")
    assert await theirs.receive_some() == b""
