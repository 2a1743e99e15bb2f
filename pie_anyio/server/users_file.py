"""A TOML file of users and their keys, looked at again whenever somebody wants to come in."""

from __future__ import annotations

import logging
import os
import threading
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pie_proto.errors import KeyFormatError
from pie_proto.key_text import encoding_of

if TYPE_CHECKING:
    from pie_proto.public_keys import PublicKey

__all__ = ["FILE_BYTES", "UsersFile"]

_log = logging.getLogger(__name__)

FILE_BYTES: Final = 1024 * 1024
"""The largest file that is read: some 10,000 keys. A larger one is a mistake, such as a log."""

_UNCHANGED: Final = "the users stay as they were: %s"

_KEYS: Final = "keys"

# What a file is to look like, for those whose file does not.
_FORM: Final = 'a user is a table like [ada], with keys = ["ssh-ed25519 AAAA… comment", …]'


class UsersFile:
    """Users, each a table with ``keys``: a list of lines of OpenSSH's ``authorized_keys`` form.

    ::

        [ada]
        keys = [
            "ssh-ed25519 AAAA… ada@laptop",
            "ssh-ed25519 AAAA… ada@desk",
        ]

    It is read when this is made, and raises then, naming the file, the user and what is wanted:
    `KeyFormatError` for a string that is no key, `ValueError` for any other content that is not
    understood, `OSError` for a file that cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._lock = threading.Lock()
        self._content = _read(self._path)
        self._keys = _parsed(self._path, self._content)
        self._unread = ""

    def keys(self) -> dict[str, tuple[PublicKey, ...]]:
        """The keys of every user, as the file has them now. Blocks; for any thread.

        While the file cannot be read or understood, those that it had before: somebody is writing
        it, perhaps. That is logged, once for each such state of the file.
        """
        with self._lock:
            try:
                # As small as it is, read rather than looked at: two changes within one tick of the
                # file system's clock look alike.
                content = _read(self._path)
                self._unread = ""
                if content != self._content:
                    self._content = content
                    self._keys = _parsed(self._path, content)
            except OSError as error:
                if str(error) != self._unread:
                    self._unread = str(error)
                    _log.warning(_UNCHANGED, error)
            except ValueError as error:
                _log.warning(_UNCHANGED, error)
            return self._keys


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        # Of one that is too large, enough to see that.
        return file.read(FILE_BYTES + 1)


def _parsed(path: Path, content: bytes) -> dict[str, tuple[PublicKey, ...]]:
    if len(content) > FILE_BYTES:
        raise ValueError(f"{path} has more than {FILE_BYTES} bytes: it is no file of users")
    try:
        users = tomllib.loads(content.decode(encoding_of(content)).removeprefix("\ufeff"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not TOML: {error}") from None
    if not users:
        raise ValueError(f"{path} has no user: {_FORM}")
    return {user: _keys_of(f"{path}: user {user!r}", table) for user, table in users.items()}


def _keys_of(who: str, table: object) -> tuple[PublicKey, ...]:
    from pie_proto.public_keys import PublicKey  # noqa: PLC0415 - loads cryptography

    if not isinstance(table, dict):
        raise ValueError(f"{who} is no table: {_FORM}")
    unknown = [name for name in table if name != _KEYS]
    if unknown:
        raise ValueError(f"{who} has the unknown field {unknown[0]!r}: {_FORM}")
    if _KEYS not in table:
        raise ValueError(f"{who} has no keys: {_FORM}")
    lines = table[_KEYS]
    if not isinstance(lines, list):
        raise ValueError(f"{who}: keys is no list: {_FORM}")
    if not lines:
        raise ValueError(f"{who}: keys is empty, and lets nobody in: {_FORM}")
    keys = []
    for number, line in enumerate(lines, start=1):
        if not isinstance(line, str):
            raise ValueError(f"{who}: key {number} is no string: {_FORM}")
        try:
            keys.append(PublicKey.parse(_one_line(line)))
        except KeyFormatError as error:
            raise KeyFormatError(f"{who}: key {number}: {error}") from None
    return tuple(keys)


def _one_line(text: str) -> str:
    line = text.strip()
    if "\n" in line or "\r" in line:
        raise KeyFormatError("there is more than one line: each key is a string of its own")
    return line
