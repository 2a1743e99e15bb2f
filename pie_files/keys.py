"""Private keys from files: `ParsedPrivateKey` of `pie_proto`, with ``from_file``."""

from __future__ import annotations

import os
import stat
import warnings
from typing import Self

from pie_proto import keys
from pie_proto.errors import KeyFormatError
from pie_proto.key_text import has_private_key, has_public_key, text_of
from pie_proto.public_keys import MAX_KEY_BYTES

__all__ = ["KeyFileWarning", "ParsedPrivateKey"]


class KeyFileWarning(UserWarning):
    """A file with a private key can be read by others than its owner."""


class ParsedPrivateKey(keys.ParsedPrivateKey):
    """A private key, ready to sign; made by `from_file` or `parse`."""

    __slots__ = ()

    @classmethod
    def from_file(
        cls, path: str | os.PathLike[str], *, passphrase: str | bytes | None = None
    ) -> Self:
        """The private key in the file at ``path``, where ``~`` stands for the home directory.

        Everything else is as for `parse`: the forms, the ``passphrase``, and the time it takes.
        Blocks; in an event loop do it before, or in a worker thread.

        Raises `KeyFormatError`, which names the file, if it holds no key that is taken or more than
        64 KiB (no more is ever read); `OSError` as it is for a file that cannot be read. Warns with
        `KeyFileWarning`, on POSIX, when the group or others may read a file that has a private key
        in it, of whatever kind: ``ssh`` would refuse it.
        """
        # Not Path.expanduser(), which raises RuntimeError when there is no such home.
        name = os.path.expanduser(path)  # noqa: PTH111
        with open(name, "rb") as file:  # noqa: PTH123
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(MAX_KEY_BYTES + 1)
        if len(data) > MAX_KEY_BYTES:
            raise KeyFormatError(f"{name}: more than {MAX_KEY_BYTES} bytes are no private key")
        text = text_of(data)
        others = os.name == "posix" and stat.S_ISREG(mode) and mode & (stat.S_IRGRP | stat.S_IROTH)
        if others and has_private_key(text):
            warnings.warn(
                f"the private key {name} can be read by others: chmod 600 keeps it private",
                KeyFileWarning,
                stacklevel=2,
            )
        try:
            return cls.parse(text, passphrase=passphrase)
        except KeyFormatError as error:
            advice = ""
            if name.endswith(".pub") and has_public_key(text):
                advice = f"; the private key that belongs to it should be {name[:-4]}"
            raise KeyFormatError(f"{name}: {error}{advice}") from None
