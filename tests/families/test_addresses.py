"""The addresses that a URI leads to: how each driver connects to them, and what it reports."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import anyio
import pytest
from anyio.abc import SocketStream

from pie_anyio import ConnectFailed, Limits, PieClient
from pie_anyio.server import serve
from tests.anyio.proxies import peer
from tests.families.world import SOON, client_of

pytestmark = pytest.mark.anyio


async def failure(driver: str, uri: str, **options: Any) -> ConnectFailed:
    """Why there is no connection."""
    with anyio.fail_after(SOON), pytest.raises(ConnectFailed) as caught:
        async with client_of(driver, uri, **options):
            pytest.fail("it connected")
    assert uri in str(caught.value)
    return caught.value


# ---------------------------------------------------------------------------------- several of them

REFUSED = os.strerror(errno.ECONNREFUSED)
BROADCAST = "127.255.255.255"

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="all of 127.0.0.0/8 is needed")

Names = Callable[..., None]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """Gives the name ``cluster`` addresses."""
    real = socket.getaddrinfo

    def resolve_to(*addresses: str) -> None:
        def resolve(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
            if host not in {"cluster", b"cluster"}:
                return real(host, port, *args, **kwargs)
            kind = (socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
            return [
                (socket.AF_INET6, *kind, (address, port, 0, 0))
                if ":" in address
                else (socket.AF_INET, *kind, (address, port))
                for address in addresses
            ]

        monkeypatch.setattr(socket, "getaddrinfo", resolve)

    return resolve_to


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        return int(unused.getsockname()[1])


@contextmanager
def answering_nobody(address: str, port: int = 0) -> Iterator[int]:
    """Something that listens, and whose queue is full: it does not answer."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((address, port))
        listening.listen(0)
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            with suppress(BlockingIOError):
                waiting.connect(listening.getsockname())
        yield int(listening.getsockname()[1])


@LINUX
async def test_every_address_that_fails_is_named_with_its_failure(
    driver: str, names: Names
) -> None:
    names("127.0.0.7", BROADCAST, "::1", "127.0.0.8")
    error = await failure(driver, f"ws://cluster:{unused_port()}")
    text = str(error)
    assert f"127.0.0.7: {REFUSED}; " in text
    assert f"127.0.0.8: {REFUSED}. Is a Pie server listening there?" in text
    assert "; ::1: " in text or ": ::1: " in text
    reason = text.partition(f"{BROADCAST}: ")[2].partition(";")[0]
    assert reason
    assert reason != REFUSED
    assert isinstance(error.__cause__, ExceptionGroup)
    assert len(error.__cause__.exceptions) == 4


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["127.0.0.1", "127.0.0.1"]])
async def test_of_a_single_address_the_message_is_short(
    driver: str, names: Names, addresses: list[str]
) -> None:
    names(*addresses)
    uri = f"ws://cluster:{unused_port()}"
    error = await failure(driver, uri)
    assert str(error) == (f"no connection to {uri}: {REFUSED}. Is a Pie server listening there?")
    assert isinstance(error.__cause__, OSError)


async def test_a_name_that_has_no_address_is_a_failed_connection(driver: str, names: Names) -> None:
    names()
    assert "has no address" in str(await failure(driver, f"ws://cluster:{unused_port()}"))


@LINUX
async def test_one_address_that_answers_is_enough(driver: str, names: Names) -> None:
    names("127.0.0.7", BROADCAST, "127.0.0.1", "127.0.0.8")
    with anyio.fail_after(SOON):
        async with serve() as server:
            async with client_of(driver, f"ws://cluster:{server.port}") as client:
                await client.authenticate("ada")


@LINUX
async def test_an_address_that_does_not_answer_holds_up_no_other(driver: str, names: Names) -> None:
    names("127.0.0.9", "127.0.0.1")
    with anyio.fail_after(SOON):
        async with serve() as server:
            with answering_nobody("127.0.0.9", server.port):
                async with client_of(driver, f"ws://cluster:{server.port}") as client:
                    await client.authenticate("ada")


@LINUX
async def test_when_time_is_up_every_address_is_named(driver: str, names: Names) -> None:
    names("127.0.0.7", "127.0.0.9")
    limits = Limits(handshake_timeout=0.5)
    with answering_nobody("127.0.0.9") as port:
        error = await failure(driver, f"ws://cluster:{port}", limits=limits)
    assert f"within 0.5 s (127.0.0.7: {REFUSED}; 127.0.0.9: no answer)" in str(error)


@LINUX
async def test_when_an_address_was_reached_the_failures_of_others_are_not_reported(
    driver: str, names: Names
) -> None:
    async def listen(stream: SocketStream) -> None:
        async with stream:
            with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                while True:
                    await stream.receive()

    names("127.0.0.7", "127.0.0.1")
    with anyio.fail_after(SOON):
        async with peer(listen) as port:
            limits = Limits(handshake_timeout=0.5)
            error = await failure(driver, f"wss://cluster:{port}", limits=limits)
    assert str(error) == f"no connection to wss://cluster:{port} within 0.5 s"


@LINUX
@pytest.mark.parametrize("driver", ["asyncio", "trio"])
async def test_every_address_of_a_proxy_is_named_with_its_failure(
    driver: str, names: Names
) -> None:
    names("127.0.0.7", "127.0.0.8")
    proxy = f"http://cluster:{unused_port()}"
    with anyio.fail_after(SOON), pytest.raises(ConnectFailed) as caught:
        async with PieClient("ws://pie.test", proxy=proxy):
            pytest.fail("it connected")
    assert str(caught.value) == (
        f"no connection to ws://pie.test: the proxy {proxy} is not reached: "
        f"127.0.0.7: {REFUSED}; 127.0.0.8: {REFUSED}"
    )


# ----------------------------------------------------------------------------------------- zones


@pytest.mark.parametrize(
    "zone", ["Wi-Fi0", "vEthernet_LAB", "~tun", "eth0.100~a", "Wi%2DFi%20%281%29", "caf%C3%A9"]
)
async def test_an_interface_that_this_machine_lacks_is_a_failed_connection(
    driver: str, zone: str
) -> None:
    error = await failure(driver, f"ws://[fe80::7%25{zone}]:8080")
    assert "Does this machine have the network interface" in str(error)
    # It is the resolver that knows no such interface, and not a codec for names.
    assert isinstance(error.__cause__, socket.gaierror)


@pytest.mark.parametrize("zone", ["4242", "99999999999999999999", "a" * 300, "%FF"])
async def test_a_zone_that_no_interface_can_have_is_a_failed_connection(
    driver: str, zone: str
) -> None:
    await failure(driver, f"ws://[fe80::7%25{zone}]:8080")
