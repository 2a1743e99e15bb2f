"""HTTP rejections whose body is framed in every way there is: each driver keeps their status."""

from __future__ import annotations

import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any, Final

import anyio
import pytest
from anyio.abc import SocketAttribute, SocketStream

from pie_anyio import ConnectFailed, Limits
from tests.families.listener import Talk, listening, saying
from tests.families.world import SOON, client_of

pytestmark = pytest.mark.anyio

# A body is waited for to the bound in tests that say so, and shortly in all others.
SHORT: Final = Limits(handshake_body_timeout=0.05)

FRAMINGS: Final = {
    "no length": b"\r\nno room",
    "too long": b"Content-Length: 2000\r\n\r\nno room",
    "chunked": b"Transfer-Encoding: chunked\r\n\r\n7\r\nno room\r\n",
    "chunk cut": b"Transfer-Encoding: chunked\r\n\r\nff\r\nno room",
    "chunk malformed": b"Transfer-Encoding: chunked\r\n\r\n7\r\nno room\r\nzz\r\n",
    "length malformed": b"Content-Length: many\r\n\r\nno room",
    "unknown coding": b"Transfer-Encoding: gzip\r\n\r\nno room",
}


async def hold(stream: SocketStream) -> None:
    """Keep the connection until the client has closed it."""
    while True:
        await stream.receive()


async def hang_up(stream: SocketStream) -> None:
    await stream.aclose()


async def end_sending(stream: SocketStream) -> None:
    await stream.send_eof()
    await hold(stream)


async def reset(stream: SocketStream) -> None:
    raw = stream.extra(SocketAttribute.raw_socket)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await anyio.aclose_forcefully(stream)


async def trickle(stream: SocketStream) -> None:
    while True:
        await anyio.wait_all_tasks_blocked()
        await stream.send(b".")


ENDS: Final = {"held": hold, "hung up": hang_up, "ended": end_sending, "reset": reset}


def rejecting(
    status: int, framing: str, end: Callable[[SocketStream], Awaitable[None]] = hold
) -> Talk:
    """Answer with ``status`` and a body that ends nowhere, then do what ``end`` does."""

    async def talk(stream: SocketStream, head: bytes) -> None:
        await stream.send(b"HTTP/1.1 %d Rejected\r\n" % status + FRAMINGS[framing])
        await end(stream)

    return talk


async def failure(driver: str, uri: str, **options: Any) -> ConnectFailed:
    """Why there is no connection."""
    with anyio.fail_after(SOON), pytest.raises(ConnectFailed) as caught:
        async with client_of(driver, uri, **{"limits": SHORT, **options}):
            pytest.fail("it connected")
    return caught.value


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("end", ENDS)
async def test_status_and_body_are_reported_however_the_body_is_framed(
    driver: str, framing: str, end: str
) -> None:
    with anyio.fail_after(SOON):
        async with listening({"/": rejecting(429, framing, ENDS[end])}) as listener:
            error = await failure(driver, listener.uri)
            await listener.nobody_left()
    assert (error.status, error.body) == (429, "no room")
    assert str(error).endswith("HTTP 429 instead of opening a WebSocket: no room")


async def test_a_location_is_reported_without_the_end_of_the_body(driver: str) -> None:
    async def talk(stream: SocketStream, head: bytes) -> None:
        await stream.send(b"HTTP/1.1 307 Go\r\nLocation: /there\r\n\r\n")
        await hold(stream)

    with anyio.fail_after(SOON):
        async with listening({"/": talk}) as listener:
            error = await failure(driver, listener.uri)
    assert (error.status, error.location, error.body) == (307, "/there", "")


def rejecting_late(status: int) -> Talk:
    """Answer with ``status``, and with a body once the client has read that."""

    async def talk(stream: SocketStream, head: bytes) -> None:
        await stream.send(b"HTTP/1.1 %d Rejected\r\nContent-Length: 7\r\n\r\n" % status)
        await anyio.wait_all_tasks_blocked()
        await stream.send(b"no room")
        await hold(stream)

    return talk


async def test_a_body_that_begins_later_is_waited_for(driver: str) -> None:
    limits = Limits(handshake_body_timeout=SOON)
    with anyio.fail_after(SOON):
        async with listening({"/": rejecting_late(429)}) as listener:
            error = await failure(driver, listener.uri, limits=limits)
    assert (error.status, error.body) == (429, "no room")


async def test_a_body_that_trickles_in_does_not_hold_up_the_report(driver: str) -> None:
    limits = Limits(handshake_body_timeout=0.05, handshake_body_bytes=1 << 30)
    with anyio.fail_after(SOON):
        async with listening({"/": rejecting(429, "no length", trickle)}) as listener:
            error = await failure(driver, listener.uri, limits=limits)
    assert error.status == 429
    assert error.body.startswith("no room")


async def test_the_end_of_the_handshakes_time_ends_the_wait_for_a_body(driver: str) -> None:
    limits = Limits(handshake_timeout=0.2, handshake_body_timeout=SOON)
    with anyio.fail_after(SOON):
        async with listening({"/": rejecting(429, "chunked")}) as listener:
            error = await failure(driver, listener.uri, limits=limits)
    assert (error.status, error.body) == (429, "no room")


@pytest.mark.parametrize("framing", FRAMINGS)
async def test_a_404_triggers_the_second_attempt_without_its_body(
    driver: str, framing: str
) -> None:
    # A wait for the first body would outlast the test.
    limits = Limits(handshake_timeout=2 * SOON, handshake_body_timeout=2 * SOON)
    answers = {"/": rejecting(404, framing), "/v1/ws": saying()}
    with anyio.fail_after(SOON):
        async with listening(answers) as listener:
            async with client_of(driver, listener.uri, limits=limits) as client:
                assert client.is_connected
    assert listener.asked == ["GET / HTTP/1.1", "GET /v1/ws HTTP/1.1"]


async def test_the_404_of_the_last_path_is_reported_with_its_body(driver: str) -> None:
    limits = Limits(handshake_body_timeout=SOON)
    answers = {"/": rejecting(404, "too long"), "/v1/ws": rejecting_late(404)}
    with anyio.fail_after(SOON):
        async with listening(answers) as listener:
            error = await failure(driver, listener.uri, limits=limits)
    assert (error.status, error.body) == (404, "no room")
    assert "/v1/ws, as there is nothing at /" in str(error)
    assert "is this a Pie server" in str(error)


async def test_the_401_of_a_body_without_end_still_says_what_to_try(driver: str) -> None:
    with anyio.fail_after(SOON):
        async with listening({"/": rejecting(401, "no length")}) as listener:
            error = await failure(driver, listener.uri)
    assert (error.status, error.body) == (401, "no room")
    assert 'identity="TENANT/USER"' in str(error)
