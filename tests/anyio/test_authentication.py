"""Who is let in, and what those who are not are told."""

from __future__ import annotations

from functools import cache

import anyio
import anyio.lowlevel
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pie_anyio import AuthenticationError, ConnectionLost, LocalProtocolError, PieClient
from pie_anyio import ParsedPrivateKey as Key
from pie_anyio.server import serve
from tests.anyio.world import SOON, connected

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


async def test_a_user_proves_who_it_is_with_its_key() -> None:
    with anyio.fail_after(SOON):
        async with serve(authorized_keys={"ada": key("ada").public_key()}) as server:
            for signer in (key("ada"), AsyncSigner()):
                async with PieClient(server.url) as client:
                    await client.authenticate("ada", signer)
                    await client.ping()


@pytest.mark.parametrize(
    ("username", "signer", "told"),
    [
        ("ada", None, "pass private_key="),
        ("ada", key("bob"), "the server said"),
        ("nobody", key("ada"), "the server said"),
        ("nobody", None, "the server said"),
    ],
)
async def test_whoever_does_not_is_refused_in_words(
    username: str, signer: Key | None, told: str
) -> None:
    with anyio.fail_after(SOON):
        async with serve(authorized_keys={"ada": key("ada").public_key()}) as server:
            async with PieClient(server.url) as client:
                with pytest.raises(AuthenticationError, match=told) as caught:
                    await client.authenticate(username, signer)
                assert caught.value.reason
                with pytest.raises((ConnectionLost, LocalProtocolError)):
                    await client.ping()


async def test_an_open_server_takes_any_name_and_any_key() -> None:
    with anyio.fail_after(SOON):
        async with serve() as server:
            for signer in (None, key("ada")):
                async with PieClient(server.url) as client:
                    await client.authenticate("anybody", signer)
                    await client.ping()


async def test_the_internal_token_lets_its_bearer_in() -> None:
    with anyio.fail_after(SOON):
        async with serve(authorized_keys={}, internal_token="secret") as server:
            async with PieClient(server.url) as client:
                await client.internal_authenticate("secret")
                await client.internal_authenticate("secret")
                await client.ping()
            async with PieClient(server.url) as client:
                with pytest.raises(AuthenticationError):
                    await client.internal_authenticate("guessed")


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
