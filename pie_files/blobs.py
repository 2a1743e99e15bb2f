"""A folder that blobs are received into, piece by piece, each under its hash."""

from __future__ import annotations

import itertools
import os
import threading
from pathlib import Path

from pie_proto.commands import hash_of
from pie_proto.events import BlobPiece

__all__ = ["BlobFolder"]


_NUMBERS = itertools.count(1)


class BlobFolder:
    """Keeps the blobs of one instance in files: ``HASH``, once a blob is whole and its hash right.

    Until then it is ``HASH.PROCESS-NUMBER.part``, a name that no other writer has.

    The folder must be there. Every method blocks, and may be called from any thread: a piece that
    is written twice, by a caller who was interrupted and by the one who takes up from there, is
    written once.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder)
        if not self._folder.is_dir():
            raise NotADirectoryError(f"there is no folder {os.fspath(folder)!r} to keep blobs in")
        self._parts: dict[str, Path] = {}
        self._lock = threading.Lock()
        self._closed = False

    def write(self, data: bytes) -> str | None:
        """Write a piece to its place; the path of the file once that was the last, else ``None``.

        What is no `BlobPiece` is a whole blob. Raises `OSError`, as for a disk that is full; the
        piece may then be written again. A file of that name, with the same content therefore, is
        replaced.
        """
        piece = data if isinstance(data, BlobPiece) else _whole(data)
        whole = self._folder / piece.hash
        with self._lock:
            if self._closed:
                return None
            part = self._parts.get(piece.hash)
            if part is None:
                if piece.offset:
                    return str(whole)  # it was finished by the caller who was interrupted
                part = self._folder / f"{piece.hash}.{os.getpid()}-{next(_NUMBERS)}.part"
                part.touch(exist_ok=False)
                self._parts[piece.hash] = part
            # Opened anew for each piece: a receiver who is forgotten leaves no file open.
            with part.open("r+b") as file:
                file.seek(piece.offset)
                file.write(piece)
            if not piece.is_last:
                return None
            part.replace(whole)
            del self._parts[piece.hash]
            return str(whole)

    def close(self) -> None:
        """Write no more, and remove what is not whole. Idempotent."""
        with self._lock:
            self._closed = True
            for part in self._parts.values():
                part.unlink(missing_ok=True)
            self._parts.clear()


def _whole(data: bytes) -> BlobPiece:
    return BlobPiece(data, hash=hash_of(data), offset=0, is_last=True)
