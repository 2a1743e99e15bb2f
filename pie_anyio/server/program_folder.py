"""Uploaded programs in a folder, each a file by its hash, so that they outlive a server.

Where programs have names, a name is a file too, which says what hash is meant by it.
"""

from __future__ import annotations

import logging
import os
import re
import uuid
from pathlib import Path
from typing import Final

from pie_proto.commands import hash_of

__all__ = ["ProgramFolder"]

_log = logging.getLogger(__name__)

# Anything else that a client calls a hash names no file here, nor anywhere else.
_HASH: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)

_NAMED: Final = ".hash"


class ProgramFolder:
    """Programs as ``HASH.wasm``, where HASH is that of the content: `pie_proto.hash_of`.

    A program's name is ``NAME@VERSION.hash``, a file of text that holds its hash.

    Every method but the constructor blocks, for as long as files take, and is for any thread.
    Several servers may use one folder at a time. Raises `ValueError` for what is there already and
    is no folder.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder).absolute()
        if self._folder.exists() and not self._folder.is_dir():
            raise ValueError(f"the programs folder {os.fspath(folder)!r} is not a folder")

    def make(self) -> None:
        """Make the folder unless it is there. Raises `OSError`."""
        self._folder.mkdir(parents=True, exist_ok=True)

    def load(self, content_hash: str) -> bytes | None:
        """The program of this hash, or ``None``. Raises `OSError` for one that cannot be read.

        A file that is not what its name says is logged, and is as good as none.
        """
        if not _HASH.fullmatch(content_hash):
            return None
        path = self._path(content_hash)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        actual = hash_of(data)
        if actual != content_hash:
            _log.warning("%s is no program that was kept: its hash is %s", path, actual)
            return None
        return data

    def keep(self, content_hash: str, data: bytes) -> None:
        """Keep a program: nobody ever sees a part of it under its name. Raises `OSError`.

        Not synced to the disk: what a crash of the machine cuts short is found out by its hash.
        """
        self._write(self._path(content_hash), data)

    def name(self, program: str, content_hash: str) -> None:
        """Keep what ``name@version`` means, in place of what it meant. Raises `OSError`."""
        self._write(self._folder / f"{program}{_NAMED}", content_hash.encode())

    def versions(self, name: str) -> dict[str, str]:
        """The versions of a name that are known, and the hash that each means."""
        found: dict[str, str] = {}
        for path in self._folder.iterdir():
            known, at, version = path.name.removesuffix(_NAMED).partition("@")
            if at and known == name and path.name.endswith(_NAMED):
                text = path.read_bytes().decode(errors="replace").strip()
                if _HASH.fullmatch(text):
                    found[version] = text
                else:
                    _log.warning("%s names no program: it holds no hash", path)
        return found

    def _write(self, path: Path, data: bytes) -> None:
        part = self._folder / f".{uuid.uuid4().hex}.part"
        try:
            with part.open("xb") as file:
                file.write(data)
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise

    def _path(self, content_hash: str) -> Path:
        return self._folder / f"{content_hash}.wasm"
