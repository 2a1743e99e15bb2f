"""Who gets into the embedded server."""

from __future__ import annotations

import anyio
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pie_anyio.server import Server, serve
from pie_proto import (
    AnswerChallenge,
    Authenticated,
    AuthenticateWithToken,
    Authentication,
    ChallengeReceived,
    Identify,
    KeyFormatError,
    Ping,
    Pong,
)
from pie_proto.public_keys import PublicKey
from tests.server.server_peer import KEY, LINE, SECONDS, client, connected

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("tidy")]


async def test_without_keys_any_name_is_accepted(server: Server) -> None:
    async with connected(server) as peer:
        assert await peer.ask(Identify("anybody")) == Authenticated(1, Authentication.ASSERTED)
        assert await peer.ask(Identify("anybody")) == Authenticated(2, Authentication.ALREADY)


async def test_a_user_is_proved_by_any_of_their_keys() -> None:
    other = PublicKey.of(Ed25519PrivateKey.generate().public_key()).line()
    async with (
        serve(authorized_keys={"joe": [other, f"{LINE} joe@home"]}) as server,
        connected(server) as peer,
    ):
        challenge = await peer.ask(Identify("joe"))
        assert isinstance(challenge, ChallengeReceived)
        assert len(challenge.challenge) == 48
        signature = KEY.sign(challenge.challenge)
        assert await peer.ask(AnswerChallenge(signature)) == Authenticated(2, Authentication.PROVED)
        assert await peer.ask(Ping()) == Pong(3)


async def test_a_wrong_signature_ends_the_connection() -> None:
    async with serve(authorized_keys={"joe": LINE}) as server, connected(server) as peer:
        assert isinstance(await peer.ask(Identify("joe")), ChallengeReceived)
        assert "verification failed" in await peer.refusal(AnswerChallenge(KEY.sign(b"other")))
        await peer.closed()


async def test_an_unknown_user_is_refused_and_the_connection_ends() -> None:
    async with serve(authorized_keys={"joe": LINE}) as server, connected(server) as peer:
        assert "'ann' is not authorized" in await peer.refusal(Identify("ann"))
        await peer.closed()


async def test_the_token_lets_its_bearer_in() -> None:
    async with (
        serve(authorized_keys={}, internal_token="s3cret") as server,
        connected(server) as peer,
    ):
        outcome = await peer.ask(AuthenticateWithToken("s3cret"))
        assert outcome == Authenticated(1, Authentication.TOKEN)


async def test_a_wrong_token_is_refused_late_and_nobody_else_waits() -> None:
    async with (
        serve(internal_token="s3cret") as server,
        connected(server) as guesser,
        client(server) as other,
    ):
        began = anyio.current_time()
        await guesser.tell(AuthenticateWithToken("guess"))
        assert isinstance(await other.ask(Ping()), Pong)
        assert anyio.current_time() - began < 1
        await guesser.closed()
        assert 1 <= anyio.current_time() - began < 5


async def test_a_wrong_token_does_not_hold_up_the_end_of_the_server() -> None:
    with anyio.fail_after(SECONDS):
        async with serve(internal_token="s3cret") as server, connected(server) as guesser:
            await guesser.tell(AuthenticateWithToken("guess"))


async def test_a_command_before_authentication_ends_the_connection(server: Server) -> None:
    async with connected(server) as peer:
        # The core of a client would refuse to send it: so, a frame of our own (masked with 0).
        ping = b"\x82\xa4type\xa4ping\xa7corr_id\x01"
        await peer.stream.send(bytes((0x82, 0x80 | len(ping))) + bytes(4) + ping)
        await peer.closed()


async def test_keys_that_are_not_understood_are_refused_with_the_name_of_the_user() -> None:
    with pytest.raises(KeyFormatError, match="the keys of user 'joe'"):
        serve(authorized_keys={"joe": "ssh-rsa nonsense"})


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
async def test_without_authentication_only_this_machine_may_connect(host: str) -> None:
    with pytest.raises(ValueError, match="with authentication off"):
        async with serve(host):
            pytest.fail("it serves")


async def test_with_authentication_it_listens_everywhere_and_has_a_url_to_connect_to() -> None:
    async with serve("0.0.0.0", authorized_keys={}) as server:
        assert server.url == f"ws://127.0.0.1:{server.port}"


async def test_localhost_is_this_machine() -> None:
    async with serve("localhost") as server:
        assert server.port > 0


@pytest.mark.parametrize(
    ("origin", "keys", "status"),
    [
        ("https://evil.example", None, b"403"),
        ("null", None, b"403"),
        ("http://localhost.evil.example", None, b"403"),
        ("http://[", None, b"403"),
        ("http://localhost:3000", None, b"101"),
        ("http://127.0.0.1", None, b"101"),
        ("http://[::1]:80", None, b"101"),
        ("https://evil.example", {}, b"101"),
    ],
)
async def test_pages_of_the_web_do_not_run_programs_here(
    origin: str, keys: dict[str, str] | None, status: bytes
) -> None:
    request = (
        "GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        f"Origin: {origin}\r\n\r\n"
    )
    async with (
        serve(authorized_keys=keys) as server,
        await anyio.connect_tcp("127.0.0.1", server.port) as stream,
    ):
        await stream.send(request.encode())
        with anyio.fail_after(SECONDS):
            assert (await stream.receive()).startswith(b"HTTP/1.1 " + status)
