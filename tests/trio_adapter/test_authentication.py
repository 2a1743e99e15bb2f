"""Who is let in, and what those who are not are told."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import trio
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pie_trio_adapter import (
    AuthenticationError,
    ConnectionLost,
    LocalProtocolError,
    ParsedPrivateKey,
    open_client,
)
from tests.trio_adapter.world import in_trio, other_process


@cache
def key(name: str) -> ParsedPrivateKey:
    """A key of somebody's, always the same one."""
    return ParsedPrivateKey.parse(
        Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


class AsyncSigner:
    """A signer that has to wait for its signature, as for a service."""

    async def sign(self, challenge: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        return key("ada").sign(challenge)


class BrokenSigner:
    """A signer that cannot sign: its card was pulled out."""

    def sign(self, challenge: bytes) -> bytes:
        raise OSError("no card in the reader")


@pytest.fixture
def arguments(tmp_path: Path) -> tuple[str, ...]:
    """How a server is told whom to let in."""
    keys, token = tmp_path / "keys.txt", tmp_path / "token.txt"
    keys.write_text(key("ada").public_key())
    token.write_text("secret")
    return "--authorized-keys", f"ada={keys}", "--internal-token-file", str(token)


@in_trio
async def test_whoever_proves_who_it_is_is_let_in_and_nobody_else(
    arguments: tuple[str, ...],
) -> None:
    async with other_process(*arguments) as server:
        for signer in (key("ada"), AsyncSigner()):
            async with open_client(server.url) as client:
                await client.authenticate("ada", signer)
                await client.authenticate("ada", signer)
                with pytest.raises(AuthenticationError, match="'ada'"):
                    await client.internal_authenticate("secret")
                await client.ping()
        for username, refused, told in (
            ("ada", None, "pass private_key="),
            ("ada", key("bob"), "the server said"),
            ("nobody", key("ada"), "the server said"),
        ):
            async with open_client(server.url) as client:
                with pytest.raises(AuthenticationError, match=told):
                    await client.authenticate(username, refused)
                with pytest.raises((ConnectionLost, LocalProtocolError)):
                    await client.ping()
        async with open_client(server.url) as client:
            with pytest.raises(OSError, match="no card"):
                await client.authenticate("ada", BrokenSigner())
            with pytest.raises(ConnectionLost, match="this side"):
                await client.ping()
        async with open_client(server.url) as client:
            with pytest.raises(LocalProtocolError, match="sign"):
                await client.authenticate("ada", "~/.ssh/id_ed25519")  # type: ignore[arg-type]
            await client.internal_authenticate("secret")
            with pytest.raises(AuthenticationError, match="with a token"):
                await client.authenticate("ada", key("ada"))
            await client.ping()


@in_trio
async def test_cancelled_at_any_step_it_is_done_or_the_connection_is_closed(
    arguments: tuple[str, ...],
) -> None:
    ended = set()
    async with other_process(*arguments) as server:
        for steps in range(0, 40, 3):
            async with open_client(server.url) as client:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(client.authenticate, "ada", key("ada"))
                    for _ in range(steps):
                        await trio.lowlevel.checkpoint()
                    nursery.cancel_scope.cancel()
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
