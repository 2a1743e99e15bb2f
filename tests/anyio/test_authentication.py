"""Who is let in, and what those who are not are told."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import cache
from typing import Any, NamedTuple

import anyio
import anyio.abc
import anyio.lowlevel
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pie_anyio import (
    AuthenticationError,
    ConnectionLost,
    LocalProtocolError,
    PieClient,
    RemoteProtocolError,
    Signer,
)
from pie_anyio import ParsedPrivateKey as Key
from pie_anyio.server import serve
from tests.anyio.world import SOON, connected
from tests.proto.pair import wire
from tests.proto.websocket_wire import answer_101, frame

pytestmark = pytest.mark.anyio


@cache
def key(name: str) -> Key:
    """A key of somebody's, always the same one."""
    return Key.parse(
        Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


class AsyncSigner:
    """A signer that has to wait for its signature, as for a service."""

    async def sign(self, challenge: bytes) -> bytes:
        await anyio.lowlevel.checkpoint()
        return key("ada").sign(challenge)


class BrokenSigner:
    """A signer that cannot sign: its card was pulled out."""

    def sign(self, challenge: bytes) -> bytes:
        raise OSError("no card in the reader")


OPEN: dict[str, Any] = {}
CLOSED: dict[str, Any] = {"authorized_keys": {"ada": key("ada").public_key()}}


class Case(NamedTuple):
    """Who comes to which server, and the words in which it is refused, if it is."""

    server: dict[str, Any]
    username: str
    signer: Signer | None
    refused: str | None = None


CASES = {
    "open server, no key": Case(OPEN, "anybody", None),
    "open server, with a key": Case(OPEN, "anybody", key("ada")),
    "closed server, the right key": Case(CLOSED, "ada", key("ada")),
    "closed server, the right key in a signer that waits": Case(CLOSED, "ada", AsyncSigner()),
    "closed server, no key": Case(CLOSED, "ada", None, "wants proof.*'ada'.*pass private_key="),
    "closed server, a wrong key": Case(CLOSED, "ada", key("bob"), "answering.*the server said: "),
    "closed server, an unknown user": Case(
        CLOSED, "nobody", key("ada"), "identifying as 'nobody': the server said: "
    ),
    "closed server, an unknown user, no key": Case(
        CLOSED, "nobody", None, "identifying as 'nobody': the server said: "
    ),
}


@pytest.mark.parametrize("name", CASES)
async def test_a_user_is_let_in_or_told_why_not(name: str) -> None:
    case = CASES[name]
    with anyio.fail_after(SOON):
        async with serve(**case.server) as server, PieClient(server.url) as client:
            if case.refused is None:
                await client.authenticate(case.username, case.signer)
                await client.ping()
                return
            with pytest.raises(AuthenticationError, match=case.refused) as caught:
                await client.authenticate(case.username, case.signer)
            assert caught.value.reason
            assert "connection" not in str(caught.value)
            with pytest.raises((ConnectionLost, LocalProtocolError)):
                await client.ping()


async def test_the_right_token_lets_its_bearer_in_also_twice() -> None:
    with anyio.fail_after(SOON):
        async with serve(authorized_keys={}, internal_token="secret") as server:
            async with PieClient(server.url) as client:
                await client.internal_authenticate("secret")
                await client.internal_authenticate("secret")
                await client.ping()


async def test_a_wrong_token_is_refused_however_late_that_is_answered() -> None:
    with anyio.fail_after(SOON):
        async with serve(authorized_keys={}, internal_token="secret") as server:
            async with PieClient(server.url) as client:
                with pytest.raises(AuthenticationError, match="internal token: the server said"):
                    await client.internal_authenticate("guessed")
                with pytest.raises((ConnectionLost, LocalProtocolError)):
                    await client.ping()


class Recorder:
    """A signer that remembers what it was asked to sign."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []

    def sign(self, challenge: bytes) -> bytes:
        self.asked.append(challenge)
        return b"a signature"


@asynccontextmanager
async def answering(text: str) -> AsyncIterator[PieClient]:
    """A client of a server that answers a name with ``text``, and a signature with yes."""

    async def serve_one(stream: anyio.abc.ByteStream) -> None:
        async with stream:
            with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                await stream.send(answer_101(await stream.receive()))
                for request_id, result in enumerate((text, "Authenticated"), start=1):
                    await stream.receive()
                    said = wire("response", corr_id=request_id, successful=True, result=result)
                    await stream.send(frame(0x82, said, masked=False))
                await stream.receive()

    with anyio.fail_after(SOON):
        async with (
            await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(listener.serve, serve_one)
            port = listener.extra(anyio.abc.SocketAttribute.local_port)
            async with PieClient(f"ws://127.0.0.1:{port}", dialect="instance") as client:
                yield client
            tasks.cancel_scope.cancel()


@pytest.mark.parametrize("size", [1, 48, 64])
async def test_a_challenge_of_1_to_64_bytes_is_signed(size: int) -> None:
    signer = Recorder()
    async with answering(base64.b64encode(bytes(range(size))).decode()) as client:
        await client.authenticate("ada", signer)
    assert signer.asked == [bytes(range(size))]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "challenge has 0 bytes"),
        (base64.b64encode(bytes(65)).decode(), "challenge has 65 bytes"),
        (base64.b64encode(bytes(1000)).decode(), "challenge has 1000 bytes"),
        ("AAA", "not base64"),
        ("AA AA", "not base64"),
        ("!!!!", "not base64"),
    ],
    ids=["0 bytes", "65 bytes", "1000 bytes", "no padding", "a space", "no base64"],
)
async def test_any_other_challenge_is_signed_by_nobody(text: str, told: str) -> None:
    signer = Recorder()
    async with answering(text) as client:
        # Not the user is refused here: the server is none that one can talk to.
        with pytest.raises(RemoteProtocolError, match=told):
            await client.authenticate("ada", signer)
        with pytest.raises(RemoteProtocolError, match=told):
            await client.ping()
    assert signer.asked == []


async def test_a_connection_has_one_user() -> None:
    with anyio.fail_after(SOON):
        async with serve() as server, connected(server) as client:
            await client.authenticate("ada")
            with pytest.raises(AuthenticationError, match="'ada'"):
                await client.authenticate("bob")
            await client.ping()


async def test_a_signer_that_fails_fails_the_authentication_and_no_other() -> None:
    with anyio.fail_after(SOON):
        async with serve(authorized_keys={"ada": key("ada").public_key()}) as server:
            async with PieClient(server.url) as client:
                with pytest.raises(OSError, match="no card"):
                    await client.authenticate("ada", BrokenSigner())
                with pytest.raises(ConnectionLost, match="this side"):
                    await client.ping()
            async with PieClient(server.url) as client:
                await client.authenticate("ada", key("ada"))


async def test_what_cannot_sign_is_refused_before_anything_is_sent() -> None:
    with anyio.fail_after(SOON):
        async with serve(authorized_keys={"ada": key("ada").public_key()}) as server:
            async with PieClient(server.url) as client:
                with pytest.raises(LocalProtocolError, match="sign"):
                    await client.authenticate("ada", "~/.ssh/id_ed25519")  # type: ignore[arg-type]
                await client.authenticate("ada", key("ada"))


async def test_cancelled_at_any_step_it_is_done_or_the_connection_is_closed() -> None:
    ended = set()
    with anyio.fail_after(2 * SOON):
        async with serve(authorized_keys={"ada": key("ada").public_key()}) as server:
            for steps in range(40):
                async with PieClient(server.url) as client:
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(client.authenticate, "ada", key("ada"))
                        for _ in range(steps):
                            await anyio.lowlevel.checkpoint()
                        tasks.cancel_scope.cancel()
                    try:
                        await client.ping()
                        ended.add("done")
                    except ConnectionLost:
                        ended.add("closed")
                    except LocalProtocolError:
                        # It was cancelled before anything was sent, and can be done yet.
                        await client.authenticate("ada", key("ada"))
                        await client.ping()
                        ended.add("not begun")
    assert "closed" in ended
