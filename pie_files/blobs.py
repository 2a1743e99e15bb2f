"""Blobs in files: received into a folder piece by piece, or kept there when they have come."""

from __future__ import annotations

import errno
import itertools
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

from pie_files.names import beside, safe_name
from pie_files.threads import Closing
from pie_proto.commands import hash_of
from pie_proto.events import Blob, BlobPiece

__all__ = ["BlobFolder", "ReceivedBlob"]


_NUMBERS = itertools.count(1)
_MARK_LENGTHS = (8, 16, 32, 64)
_READ_SIZE = 1024 * 1024

# Writing a piece takes less than 1 ms, and so nothing is left when `close` returns. Only a disk
# that does not answer makes an event loop wait so long, once.
_PATIENCE = 0.1


class ReceivedBlob(Blob):
    """What an instance sent as a blob: its bytes, with ``name`` and ``hash``, and `save`."""

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Keep it in a file of ``folder``; the path of that file. Blocks.

        A large one is a matter for a worker thread: ``await anyio.to_thread.run_sync(data.save,
        folder)``, or ``trio.to_thread``.

        The file is called after ``name``, as far as that is fit to name one (no folder, nothing
        hidden, nothing that is no name on some system, at most 255 bytes), else it is called by the
        hash. No file is ever overwritten: if the name is taken, it has the beginning of the hash
        before its suffix. A file there that has one of these names and the same content is taken
        for it.

        Under its name it is whole: until then it is a file that ends in ``.part``, which is removed
        if something goes wrong. Raises `NotADirectoryError` if there is no such folder, and
        `OSError` as the system does.
        """
        place = _existing(folder)
        name = safe_name(self.name or "") or self.hash
        others = (beside(name, "-" + self.hash[:length]) for length in _MARK_LENGTHS)
        part: Path | None = None
        try:
            for path in (place / each for each in (name, *others)):
                if not os.path.lexists(path):
                    part = part or self._write(place)
                    if _publish(part, path):
                        return path
                if _holds(path, self):
                    return path
        finally:
            if part is not None:
                part.unlink(missing_ok=True)
        raise FileExistsError(errno.EEXIST, "so are the names beside it", str(place / name))

    def _write(self, folder: Path) -> Path:
        part = _new_part(folder, self.hash)
        try:
            part.write_bytes(self)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        return part


class BlobFolder:
    """Keeps the blobs of one instance in files: ``HASH``, once a blob is whole and its hash right.

    Until then it is ``HASH.PROCESS-NUMBER.part``, a name that no other writer has.

    The folder must be there. A piece that is written twice, by a caller who was interrupted and by
    the one who takes up from there, is written once, also while the first is still writing it.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = _existing(folder)
        self._parts: dict[str, Path] = {}
        self._closing = Closing(self._remove_parts)
        self._lock = threading.Lock()
        self._current: _Writing | None = None

    def writing(self, data: bytes) -> Callable[[], str | None]:
        """A call that writes a piece to its place, and may be called by several threads at once.

        It gives the path of the file once that was the last piece, else ``None``. For the piece
        that was given before, it is the same call: it writes that piece once, whoever calls it and
        how often. Give the next piece only when it has returned. Neither blocks nor raises; the
        call blocks, and raises `OSError`, as for a disk that is full. It may then be called again.

        What is no `BlobPiece` is a whole blob. A file of that name, with the same content
        therefore, is replaced.
        """
        with self._lock:
            if self._current is None or self._current.data is not data:
                self._current = _Writing(data, self._write, self._closing)
            return self._current

    def settled(self) -> None:
        """Hold on to the present piece no longer: its caller has what `writing` gave."""
        with self._lock:
            self._current = None

    def write(self, data: bytes) -> str | None:
        """Write a piece to its place, as what `writing` returns. Blocks."""
        return self.writing(data)()

    def _write(self, data: bytes) -> str | None:
        match data:
            case BlobPiece():
                content_hash, offset, is_last = data.hash, data.offset, data.is_last
            case Blob():
                content_hash, offset, is_last = data.hash, 0, True
            case _:
                content_hash, offset, is_last = hash_of(data), 0, True
        whole = self._folder / content_hash
        part = self._parts.get(content_hash)
        if part is None:
            if offset:
                return str(whole)  # it was finished before
            part = self._parts[content_hash] = _new_part(self._folder, content_hash)
        # Opened anew for each piece: a receiver who is forgotten leaves no file open.
        with part.open("r+b") as file:
            file.seek(offset)
            file.write(data)
        if not is_last:
            return None
        part.replace(whole)
        del self._parts[content_hash]
        return str(whole)

    def close(self) -> None:
        """Write no more, and remove what is not whole. Idempotent, from any thread.

        It waits no longer than 0.1 s for a thread that is writing. If that is not enough, that
        thread removes what is not whole when it has written its piece.
        """
        self._closing.close(_PATIENCE)

    def _remove_parts(self) -> None:
        for part in self._parts.values():
            part.unlink(missing_ok=True)
        self._parts.clear()


class _Writing:
    """The writing of one piece: done once, and told as often as it is asked for."""

    def __init__(self, data: bytes, write: Callable[[bytes], str | None], closing: Closing) -> None:
        self.data = data
        self._write = write
        self._closing = closing
        self._path: str | None = None
        self._done = False

    def __call__(self) -> str | None:
        with self._closing:
            if not self._done and not self._closing.closed:
                self._path = self._write(self.data)
                self._done = True
            return self._path


def _existing(folder: str | os.PathLike[str]) -> Path:
    path = Path(folder)
    if not path.is_dir():
        raise NotADirectoryError(f"there is no folder {os.fspath(folder)!r} to keep blobs in")
    return path


def _new_part(folder: Path, content_hash: str) -> Path:
    """An empty file of our own, for what is not whole."""
    while True:
        part = folder / f"{content_hash}.{os.getpid()}-{next(_NUMBERS)}.part"
        try:
            part.touch(exist_ok=False)
        except FileExistsError:
            continue  # of a process that is no more, or of somebody who guesses
        return part


def _publish(part: Path, path: Path) -> bool:
    """Give what is whole its name, unless that is taken."""
    try:
        os.link(part, path)
    except FileExistsError:
        return False
    except OSError:
        return _replace_nothing(part, path)
    return True


def _replace_nothing(part: Path, path: Path) -> bool:
    """As `_publish`, where files cannot have two names (FAT, some network drives).

    For a moment there is an empty file of that name, for renaming would overwrite what is there.
    """
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    try:
        part.replace(path)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return True


def _holds(path: Path, content: bytes) -> bool:
    """Whether it is a file, no link to one, with just this content."""
    view, offset = memoryview(content), 0
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_size != len(content):
            return False
        with path.open("rb") as file:
            while piece := file.read(_READ_SIZE):
                if piece != view[offset : offset + len(piece)]:
                    return False
                offset += len(piece)
    except OSError:
        return False  # whatever it is, it may not be looked at, or is gone
    return offset == len(content)
