"""Who may speak to the server: users by their public keys, and the bearer of the internal token."""

from __future__ import annotations

import hmac
import ipaddress
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from anyio import to_thread

from pie_proto.errors import KeyFormatError

if TYPE_CHECKING:
    from pie_anyio.server.users_file import UsersFile
    from pie_proto.public_keys import PublicKey

__all__ = ["CHALLENGE_BYTES", "INTERNAL_USER", "Users"]

CHALLENGE_BYTES: Final = 48
"""The length of a challenge, as the real server has it."""

INTERNAL_USER: Final = "internal"
"""Whom the bearer of the internal token is taken for."""


class Users:
    """The users that a server knows, and the keys that prove them.

    ``authorized_keys`` gives each user's keys in the form of OpenSSH's file of that name, as one
    text or several, and ``file`` in its own; without either, authentication is off. Raises
    `KeyFormatError`, which names the user, for a text that is not understood.
    """

    def __init__(
        self,
        authorized_keys: Mapping[str, str | Iterable[str]] | None,
        internal_token: str | None,
        file: UsersFile | None = None,
    ) -> None:
        self._token = None if internal_token is None else internal_token.encode()
        self._file = file
        self._keys: dict[str, tuple[PublicKey, ...]] | None = None
        if authorized_keys is not None:
            self._keys = {user: _parsed(user, text) for user, text in authorized_keys.items()}

    @property
    def open(self) -> bool:
        """Whether authentication is off: any name does."""
        return self._keys is None and self._file is None

    async def knows(self, username: str) -> bool:
        """Whether there is such a user; with authentication off, there is."""
        keys = await self._current()
        return keys is None or username in keys

    def objection(self, headers: Iterable[tuple[str, str]]) -> str | None:
        """Why not even to talk to a client whose handshake has these headers, if so.

        Any page of the web can have the browser on this machine connect to a server that listens
        here only. With authentication off, that would let it run programs.
        """
        if self.open:
            for name, value in headers:
                if name == "origin" and not _is_local(value):
                    return (
                        f"{value[:200]} may not connect while authentication is off: a page is to "
                        "come from this machine"
                    )
        return None

    def challenge(self) -> bytes:
        """New random bytes to be signed."""
        return os.urandom(CHALLENGE_BYTES)

    async def verify(self, username: str, challenge: bytes, signature: bytes) -> bool:
        """Whether one of the user's keys signed the challenge; in a worker thread."""
        keys = (await self._current() or {}).get(username, ())

        def verify() -> bool:
            return any(key.verify(challenge, signature) for key in keys)

        return await to_thread.run_sync(verify)

    async def _current(self) -> Mapping[str, tuple[PublicKey, ...]] | None:
        return self._keys if self._file is None else await to_thread.run_sync(self._file.keys)

    def is_token(self, token: str) -> bool:
        """Whether this is the internal token, found out in a time that does not tell more."""
        return self._token is not None and hmac.compare_digest(self._token, token.encode())


def _parsed(user: str, text: str | Iterable[str]) -> tuple[PublicKey, ...]:
    from pie_proto.public_keys import parse_authorized_keys  # noqa: PLC0415 - loads cryptography

    try:
        return parse_authorized_keys(text if isinstance(text, str) else "\n".join(text))
    except KeyFormatError as error:
        raise KeyFormatError(f"the keys of user {user!r}: {error}") from None


def _is_local(origin: str) -> bool:
    try:
        host = urlsplit(origin).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
