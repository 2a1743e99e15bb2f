"""An hour of deadlines in milliseconds: trio's clock is the only one there is."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from pie_proto import DEFAULT_LIMITS
from pie_trio_adapter import (
    Closer,
    ConnectFailed,
    ConnectionLost,
    Event,
    Limits,
    RequestTimeout,
    open_client,
)
from tests.trio_adapter.scripted import INSTANCE, scripted

HOUR = 3600.0


@trio.testing.trio_test
async def test_keepalive_keeps_a_silent_connection_for_an_hour(
    clock: trio.testing.MockClock,
) -> None:
    async with scripted() as (server, client):
        before = server.received
        await trio.sleep(HOUR)
        assert client.is_connected
        pings = (server.received - before) / 6  # an empty frame: two bytes, and four of mask
        assert 170 <= pings <= 180
        await client.ping()


@trio.testing.trio_test
async def test_without_keepalive_nothing_is_sent(clock: trio.testing.MockClock) -> None:
    async with scripted(limits=Limits(keepalive_interval=None)) as (server, client):
        before = server.received
        await trio.sleep(HOUR)
        assert server.received == before
        await client.ping()


@trio.testing.trio_test
async def test_a_server_that_falls_silent_is_given_up_on(clock: trio.testing.MockClock) -> None:
    assert DEFAULT_LIMITS.keepalive_interval is not None
    async with scripted() as (server, client):
        instance = await client.launch_instance("0" * 64)
        server.fall_silent()
        started = trio.current_time()
        with pytest.raises(ConnectionLost, match="keepalive") as caught:
            await instance.receive()
        assert caught.value.by is Closer.TRANSPORT
        patience = DEFAULT_LIMITS.keepalive_interval + DEFAULT_LIMITS.keepalive_timeout
        assert trio.current_time() - started == pytest.approx(patience)


@trio.testing.trio_test
async def test_a_handshake_that_is_not_answered_is_given_up_on(
    clock: trio.testing.MockClock,
) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    with pytest.raises(ConnectFailed, match="not answered"):
        async with open_client(ours):
            pass
    assert trio.current_time() == pytest.approx(DEFAULT_LIMITS.handshake_timeout)
    assert (await theirs.receive_some()).startswith(b"GET / HTTP/1.1\r\n")


@trio.testing.trio_test
async def test_a_connection_that_is_not_made_is_given_up_on(
    clock: trio.testing.MockClock,
) -> None:
    class Nowhere(trio.abc.HostnameResolver):
        async def getaddrinfo(self, *args: object) -> list[Any]:
            await trio.sleep_forever()
            raise AssertionError

        async def getnameinfo(self, *args: object) -> tuple[str, str]:
            raise AssertionError

    trio.socket.set_custom_hostname_resolver(Nowhere())
    with pytest.raises(ConnectFailed, match=r"no connection to ws://nowhere within 30 s"):
        async with open_client("ws://nowhere"):
            pass
    assert trio.current_time() == pytest.approx(DEFAULT_LIMITS.handshake_timeout)


@trio.testing.trio_test
async def test_closing_is_bounded_when_the_server_is_deaf(clock: trio.testing.MockClock) -> None:
    async with scripted() as (server, client):
        server.fall_silent()
        started = trio.current_time()
        await client.aclose()
        assert trio.current_time() - started == pytest.approx(DEFAULT_LIMITS.close_timeout)
        with pytest.raises(ConnectionLost, match="this side"):
            await client.ping()


@trio.testing.trio_test
async def test_closing_is_bounded_when_the_server_takes_nothing(
    clock: trio.testing.MockClock,
) -> None:
    async with scripted(lockstep=True) as (_, client):
        instance = await client.launch_instance("0" * 64)
        async with trio.open_nursery() as nursery:

            async def flood() -> None:
                with pytest.raises(ConnectionLost):
                    while True:
                        await instance.send("x" * 100_000)

            # Its answers are not taken either, so the server takes no more messages.
            nursery.start_soon(flood)
            await trio.testing.wait_all_tasks_blocked()
            started = trio.current_time()
            await client.aclose()
            waited = trio.current_time() - started
            assert waited <= 2 * DEFAULT_LIMITS.close_timeout + 1e-6


@trio.testing.trio_test
async def test_what_waits_behind_unread_events_fails_after_the_grace_and_names_the_instance(
    clock: trio.testing.MockClock,
) -> None:
    async with scripted() as (server, client):
        instance = await client.launch_instance("0" * 64)
        piece = "x" * 1024 * 1024
        for _ in range(20):
            await server.emit(Event.Stdout, piece)
        await trio.testing.wait_all_tasks_blocked()
        assert client.statistics().reading_paused
        started = trio.current_time()
        with pytest.raises(RequestTimeout, match=INSTANCE):
            await client.ping()
        assert trio.current_time() - started == pytest.approx(DEFAULT_LIMITS.request_grace)
        # Keepalive rests while reading is paused: nobody is blamed for what we do not read.
        await trio.sleep(HOUR)
        for _ in range(20):
            assert await instance.receive() == (Event.Stdout, piece)
        await client.ping()


@trio.testing.trio_test
async def test_when_writing_fails_reading_goes_on_for_a_second(
    clock: trio.testing.MockClock,
) -> None:
    async with scripted() as (server, client):
        instance = await client.launch_instance("0" * 64)
        await server.emit(Event.Message, "last words")
        assert isinstance(server.stream, trio.StapledStream)
        # The client's way out is closed at its end, its way in is not.
        receive = server.stream.receive_stream
        assert isinstance(receive, trio.testing.MemoryReceiveStream)
        receive.close()
        started = trio.current_time()
        with pytest.raises(ConnectionLost):
            await client.ping()
        assert trio.current_time() - started == pytest.approx(1)
        assert await instance.receive() == (Event.Message, "last words")
        with pytest.raises(ConnectionLost):
            await instance.receive()
