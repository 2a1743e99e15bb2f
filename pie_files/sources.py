"""What is uploaded: bytes in memory, or a file that is read piece by piece."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeAlias

from blake3 import blake3

from pie_files.threads import Closing
from pie_proto.commands import Buffer, UploadCommand, buffer_problem
from pie_proto.dialects import Capabilities
from pie_proto.errors import LocalProtocolError, UploadFailed

__all__ = [
    "HASH_IN_THREAD_BYTES",
    "UNREPORTED_BYTES",
    "Content",
    "FileSource",
    "SourceChanged",
    "UploadContent",
]

UploadContent: TypeAlias = "Buffer | str | os.PathLike[str]"
"""What can be uploaded: bytes, or the path of a file."""

HASH_IN_THREAD_BYTES: Final = 256 * 1024
"""Above this, hashing (about 1 GB/s) would hold an event loop up for more than 0.3 ms."""

UNREPORTED_BYTES: Final = 256 * 1024 * 1024
"""The most that is read of a file that has more than the system reports, as those of ``/proc`` do:
such a file may have no end. It is the largest upload that most servers accept."""

_READ_BYTES: Final = 1024 * 1024

# A pipe that has taken the place of a file since we looked would block until somebody writes to it.
_NO_WAITING: Final = getattr(os, "O_NONBLOCK", 0)


class SourceChanged(OSError):
    """A file is not what it was when its upload began."""


class Content:
    """What is to be uploaded: its size, its hash, and either its bytes or where to read them.

    Who makes one closes it, with `close` or as ``with content:``, from any thread at any time: that
    ends what another thread does with it after the present piece, and only then the file is closed.
    """

    __slots__ = ("_announced", "_closed", "_limit", "_source", "data", "hash", "size")

    def __init__(
        self, content: UploadContent, announced: UploadCommand, server: Capabilities | None = None
    ) -> None:
        """Neither blocks nor copies bytes. ``announced`` says what is done with it, and ``server``
        how much of that is accepted.

        Raises `LocalProtocolError` for what is neither contiguous bytes nor a path.
        """
        self.data: Buffer | None = None
        self.size = 0
        """In bytes. For a file it is 0 until `prepare` has read it."""
        self.hash = ""
        """Empty until `prepare` is done."""
        self._announced = announced
        self._limit = None if server is None else server.upload_bytes
        self._source: FileSource | None = None
        self._closed = False
        if isinstance(content, str | os.PathLike):
            self._source = FileSource(content)
        elif not isinstance(content, bytes | bytearray | memoryview):
            raise LocalProtocolError(f"bytes or a path is wanted, not {type(content).__name__}")
        elif problem := buffer_problem(content):
            raise LocalProtocolError(f"what is uploaded {problem}")
        else:
            self.data = content
            self.size = memoryview(content).nbytes

    @property
    def blocks(self) -> bool:
        """Whether `prepare` and `read` belong in a worker thread."""
        return self._source is not None or self.size > HASH_IN_THREAD_BYTES

    @property
    def command(self) -> UploadCommand:
        """The command that uploads it, with what is known of its size and hash."""
        return replace(self._announced, size=self.size, hash=self.hash, data=self.data)

    def prepare(self) -> None:
        """Open and hash all of it. Blocks.

        Raises `SourceChanged`, `OSError` for a file that cannot be read, and `LocalProtocolError`
        for one that the server would not accept.
        """
        if self._source is not None:
            self.size, self.hash = self._source.prepare(self._check)
            return
        self._check(self.size)
        hasher = blake3()
        with memoryview(self.data or b"").cast("B") as view:
            for start in range(0, self.size, _READ_BYTES):
                if self._closed:
                    return
                with view[start : start + _READ_BYTES] as piece:
                    hasher.update(piece)
        self.hash = hasher.hexdigest()

    def _check(self, size: int) -> None:
        if self._limit is not None and size > self._limit:
            raise LocalProtocolError(
                f"{type(self._announced).__name__} has {size} bytes; the server takes {self._limit}"
            )

    def read(self, offset: int, length: int) -> Buffer:
        """A piece of it. Blocks for a file; raises `SourceChanged` or `OSError`."""
        if self._source is not None:
            return self._source.read(offset, length)
        return memoryview(self.data or b"").cast("B")[offset : offset + length]

    def changed(self, exc: SourceChanged) -> UploadFailed:
        """The exception for an upload that ends with its file found changed."""
        text = f"the upload was stopped: {exc}"
        return UploadFailed(text, command=self.command, reason=str(exc))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, if there is one, and stop hashing. Idempotent; never blocks on a use."""
        self._closed = True
        if self._source is not None:
            self._source.close()


class FileSource:
    """A file, read by position until it ends. All but `close` block.

    It is never mapped: a mapped file that shrinks kills the process, and mapping counts as memory.
    Its reported size is not relied on: the files of ``/proc`` report 0, those of ``/sys`` 4096.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Opens nothing."""
        self._path = path
        self._name = ""
        self._file: FileIO | None = None
        self._stamp = (0, 0)
        self._size = 0
        self._hash = ""
        # What was hashed when the pieces were read again to be sent, and how far that has come.
        self._again = blake3()
        self._again_to = 0
        self._closing = Closing(self._release)

    def prepare(self, check: Callable[[int], None]) -> tuple[int, str]:
        """Open the file; the number of its bytes and their BLAKE3 hash.

        ``check`` is called with a size that the file has at least, and raises if that is too much.
        """
        with self._closing:
            self._name, self._file = _open(self._path)
            self._stamp = self._stat()
            check(self._stamp[0])
            hasher = blake3()
            while piece := self._next(self._size, _READ_BYTES):
                hasher.update(piece)
                self._size += len(piece)
                check(self._size)
                if self._size > max(self._stamp[0], UNREPORTED_BYTES):
                    raise LocalProtocolError(
                        f"{self._name} has more than {UNREPORTED_BYTES} bytes, of which the system "
                        f"reports {self._stamp[0]}: it may have no end, so it is not uploaded"
                    )
            self._hash = hasher.hexdigest()
            return self._size, self._hash

    def read(self, offset: int, length: int) -> bytes:
        """Just ``length`` bytes from ``offset``; raises `SourceChanged` or `OSError`.

        Where all pieces are read in order, the last one is given only if the content is the one
        that was hashed.
        """
        with self._closing:
            pieces = []
            missing = length
            while missing:
                piece = self._next(offset + length - missing, missing)
                if not piece:
                    raise self._different()
                pieces.append(piece)
                missing -= len(piece)
            found = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            if offset == self._again_to:
                self._again.update(found)
                self._again_to += length
                if self._again_to == self._size and self._again.hexdigest() != self._hash:
                    raise self._different()
            return found

    def close(self) -> None:
        """Close the file: at once, or when the thread that uses it is done with its piece."""
        self._closing.close()

    def _next(self, offset: int, length: int) -> bytes:
        """Some bytes from ``offset``, at most ``length``; none at the end of the file."""
        if self._closing.closed or self._file is None:
            raise OSError(errno.EBADF, "it was closed", self._name)
        try:
            self._file.seek(offset)
            piece = self._file.read(length)
        except OSError as exc:
            exc.filename = self._name
            raise
        if piece is None:
            raise OSError(errno.EAGAIN, "it cannot be read to its end now", self._name)
        size, changed = self._stat()
        if size < self._stamp[0]:
            raise SourceChanged(
                f"{self._name} has become shorter: {self._stamp[0]} bytes when the upload began, "
                f"{size} now"
            )
        if (size, changed) != self._stamp:
            raise self._different()
        return piece

    def _stat(self) -> tuple[int, int]:
        if self._file is None:
            raise AssertionError("it is not open")
        found = os.fstat(self._file.fileno())
        return found.st_size, found.st_mtime_ns

    def _different(self) -> SourceChanged:
        return SourceChanged(f"{self._name} was changed while it was being uploaded")

    def _release(self) -> None:
        if self._file is not None:
            self._file.close()


def _open(path: str | os.PathLike[str]) -> tuple[str, FileIO]:
    """What the file at ``path`` is called, and the file. Raises `OSError` if it is not regular."""
    try:
        place = Path(path)
        if place.exists() and not (place.is_file() or place.is_dir()):
            raise _not_regular(place)
        file = open(place, "rb", buffering=0, opener=_opened)  # noqa: SIM115 - FileSource closes it
    except (TypeError, ValueError) as exc:  # a null character in it, say
        raise LocalProtocolError(f"{path!r} cannot be the path of a file: {exc}") from exc
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise _not_regular(place)
    return str(place), file


def _opened(name: str, flags: int) -> int:
    return os.open(name, flags | _NO_WAITING)


def _not_regular(place: Path) -> OSError:
    return OSError(
        errno.EINVAL,
        "not a regular file, so it cannot be read twice: read it, and upload the bytes",
        str(place),
    )
