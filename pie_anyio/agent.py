"""`SshAgentSigner`: answers a server's challenge with a key that a running ssh-agent holds."""

from __future__ import annotations

import os

import anyio
from anyio.abc import ByteStream
from anyio.streams.buffered import BufferedByteReceiveStream

from pie_proto.errors import AgentError
from pie_proto.public_keys import PublicKey
from pie_proto.ssh_agent import (
    MAX_REPLY_BYTES,
    identities_request,
    read_identities,
    read_signature,
    sign_request,
)

__all__ = ["SshAgentSigner"]


class SshAgentSigner:
    """A `Signer` whose private key never leaves the ssh-agent that holds it.

    ``key`` names one of the agent's keys: its fingerprint (``SHA256:…``), its comment, or its
    public key as a line of ``authorized_keys``. Without it the agent's first key of a kind that Pie
    takes is used. ``socket_path`` is where the agent listens; by default ``SSH_AUTH_SOCK`` says so.

    Each call makes a connection of its own. Everything raises `AgentError` if there is no agent, it
    has no such key, or it refuses. It may wait for a person, to touch a token or confirm; bound it
    with a time limit of your own. Cancel-safe.
    """

    def __init__(
        self, key: str | None = None, *, socket_path: str | os.PathLike[str] | None = None
    ) -> None:
        self._wanted = key
        self._socket_path = socket_path

    async def keys(self) -> tuple[PublicKey, ...]:
        """The keys that the agent holds, of the kinds that Pie takes, in its order."""
        return read_identities(await self._ask(identities_request()))

    async def sign(self, challenge: bytes, /) -> bytes:
        """Have the agent sign the raw bytes of a challenge (1 to 64 of them)."""
        key = self._choose(await self.keys())
        return read_signature(await self._ask(sign_request(key, challenge)), key)

    def _choose(self, keys: tuple[PublicKey, ...]) -> PublicKey:
        for key in keys:
            named = (key.fingerprint(), key.comment, key.line())
            if self._wanted is None or self._wanted in named or self._is_line_of(key):
                return key
        if not keys:
            raise AgentError("the ssh-agent has no key that can be used here: ssh-add adds one")
        held = ", ".join(f"{key.fingerprint()} ({key.comment})" for key in keys)
        raise AgentError(f"the ssh-agent has no key {self._wanted!r}; it has {held}")

    def _is_line_of(self, key: PublicKey) -> bool:
        # A line may end in a comment of its own.
        return self._wanted is not None and self._wanted.split()[:2] == key.line().split()[:2]

    async def _ask(self, request: bytes) -> bytes:
        path = self._socket_path or os.environ.get("SSH_AUTH_SOCK")
        if not path:
            raise AgentError("no ssh-agent is known here: SSH_AUTH_SOCK is not set")
        try:
            async with await anyio.connect_unix(path) as stream:
                await stream.send(request)
                return await _receive_reply(stream)
        except (OSError, anyio.BrokenResourceError) as exc:
            raise AgentError(f"no ssh-agent answers at {os.fspath(path)}: {exc}") from exc
        except (anyio.EndOfStream, anyio.IncompleteRead) as exc:
            raise AgentError("the ssh-agent closed the connection without an answer") from exc


async def _receive_reply(stream: ByteStream) -> bytes:
    received = BufferedByteReceiveStream(stream)
    length = int.from_bytes(await received.receive_exactly(4), "big")
    if length > MAX_REPLY_BYTES:
        raise AgentError(f"the ssh-agent announced an answer of {length} bytes")
    return await received.receive_exactly(length)
