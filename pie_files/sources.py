"""What is uploaded: bytes in memory, or a file that is read piece by piece."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeAlias

from blake3 import blake3

from pie_proto.commands import Buffer, buffer_problem, hash_of
from pie_proto.errors import LocalProtocolError

__all__ = ["HASH_IN_THREAD_BYTES", "Content", "FileSource", "SourceChanged", "UploadContent"]

UploadContent: TypeAlias = "Buffer | str | os.PathLike[str]"
"""What can be uploaded: bytes, or the path of a file."""

HASH_IN_THREAD_BYTES: Final = 256 * 1024
"""Above this, hashing (about 1 GB/s) would hold an event loop up for more than 0.3 ms."""

_READ_SIZE = 1024 * 1024


class SourceChanged(OSError):
    """A file is not what it was when its upload began."""


class Content:
    """What is to be uploaded: its size, its hash, and either its bytes or where to read them.

    ``with content:`` closes the file, if there is one.
    """

    __slots__ = ("data", "hash", "size", "source")

    def __init__(self, content: UploadContent) -> None:
        """Opens a path, which may block; copies no bytes.

        Raises `OSError` for a file that cannot be read, `LocalProtocolError` for what is neither
        contiguous bytes nor a path.
        """
        self.data: Buffer | None = None
        self.source: FileSource | None = None
        self.hash = ""
        """Empty, until `take_hash`."""
        if isinstance(content, str | os.PathLike):
            self.source = FileSource(Path(content))
            self.size = self.source.size
        elif not isinstance(content, bytes | bytearray | memoryview):
            raise LocalProtocolError(f"bytes or a path is wanted, not {type(content).__name__}")
        elif problem := buffer_problem(content):
            raise LocalProtocolError(f"what is uploaded {problem}")
        else:
            self.data = content
            self.size = memoryview(content).nbytes

    @property
    def blocks(self) -> bool:
        """Whether `take_hash` is a matter for a worker thread."""
        return self.source is not None or self.size > HASH_IN_THREAD_BYTES

    def take_hash(self) -> None:
        """Hash it all. Raises `SourceChanged` or `OSError`."""
        if self.source is not None:
            self.hash = self.source.hash()
        elif self.data is not None:
            self.hash = hash_of(self.data)

    def read(self, offset: int, length: int) -> Buffer:
        """A piece of it. Blocks for a file; raises `SourceChanged` or `OSError`."""
        if self.source is not None:
            return self.source.read(offset, length)
        return memoryview(self.data or b"").cast("B")[offset : offset + length]

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
        """Close the file, if there is one. Idempotent."""
        if self.source is not None:
            self.source.close()


class FileSource:
    """A file, read by position and never mapped: a mapped file that shrinks kills the process, and
    mapping counts as memory. Every method blocks.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # Opening a pipe would wait for somebody to write to it.
        if not path.is_dir() and path.exists() and not path.is_file():
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        self._file = path.open("rb", buffering=0)
        self._stamp = self._stat()

    @property
    def size(self) -> int:
        """The size of the file when it was opened, in bytes."""
        return self._stamp[0]

    def _stat(self) -> tuple[int, int]:
        stat = os.fstat(self._file.fileno())
        return stat.st_size, stat.st_mtime_ns

    def hash(self) -> str:
        """The BLAKE3 hash of the whole file."""
        hasher = blake3()
        offset = 0
        while offset < self.size:
            piece = self.read(offset, min(_READ_SIZE, self.size - offset))
            hasher.update(piece)
            offset += len(piece)
        return hasher.hexdigest()

    def read(self, offset: int, length: int) -> bytes:
        """Just ``length`` bytes from ``offset``; raises `SourceChanged` or `OSError`."""
        self._file.seek(offset)
        pieces = []
        missing = length
        while missing:
            piece = self._file.read(missing)
            if not piece:
                raise SourceChanged(
                    f"{self._path} has become shorter: {self.size} bytes when the upload began, "
                    f"{self._stat()[0]} now"
                )
            pieces.append(piece)
            missing -= len(piece)
        if self._stat() != self._stamp:
            raise SourceChanged(f"{self._path} was changed while it was being uploaded")
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
