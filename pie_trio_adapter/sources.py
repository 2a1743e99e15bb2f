"""Where an upload's bytes come from: memory, or a file that is read piece by piece."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import TracebackType
from typing import Self, TypeAlias

import trio
from blake3 import blake3

from pie_proto.commands import Buffer, hash_of
from pie_proto.errors import LocalProtocolError

__all__ = ["Content", "FileSource", "SourceChanged", "UploadContent", "open_content"]

UploadContent: TypeAlias = "Buffer | str | os.PathLike[str]"

# Above this, hashing (about 1 GB/s) would hold the other tasks up for more than 0.3 ms.
_HASH_IN_THREAD = 256 * 1024

_READ_SIZE = 1024 * 1024


class SourceChanged(OSError):
    """A file is not what it was when its upload began."""


class Content:
    """What is to be uploaded: its size, its hash, and either its bytes or where to read them.

    ``with content:`` closes the file, if there is one.
    """

    __slots__ = ("data", "hash", "size", "source")

    def __init__(
        self, size: int, content_hash: str, data: Buffer | None, source: FileSource | None
    ) -> None:
        self.size = size
        self.hash = content_hash
        self.data = data
        self.source = source

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.source is not None:
            self.source.close()


class FileSource:
    """A file, read by position in worker threads and never mapped: a mapped file that shrinks
    kills the process, and mapping counts as memory.
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
        """The BLAKE3 hash of the whole file. Blocks: call it in a worker thread."""
        hasher = blake3()
        offset = 0
        while offset < self.size:
            piece = self._read(offset, min(_READ_SIZE, self.size - offset))
            hasher.update(piece)
            offset += len(piece)
        return hasher.hexdigest()

    def _read(self, offset: int, length: int) -> bytes:
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

    async def read(self, offset: int, length: int) -> bytes:
        """Just ``length`` bytes from ``offset``; raises `SourceChanged` or `OSError`."""
        return await trio.to_thread.run_sync(self._read, offset, length)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


async def open_content(content: UploadContent) -> Content:
    """Take stock of what is to be uploaded: hash it, in a worker thread unless it is small.

    Bytes are not copied. Raises `OSError` for a file that cannot be read or changes meanwhile,
    `LocalProtocolError` for what is neither bytes nor a path. Cancel-safe: no file is left open.
    """
    if isinstance(content, bytes | bytearray | memoryview):
        if not memoryview(content).c_contiguous:
            raise LocalProtocolError("a memoryview that is uploaded must be contiguous")
        size = memoryview(content).nbytes
        if size > _HASH_IN_THREAD:
            digest = await trio.to_thread.run_sync(hash_of, content)
        else:
            await trio.lowlevel.checkpoint()
            digest = hash_of(content)
        return Content(size, digest, content, None)
    if not isinstance(content, str | os.PathLike):
        raise LocalProtocolError(f"bytes or a path is wanted, not {type(content).__name__}")
    source = await trio.to_thread.run_sync(FileSource, Path(content))
    try:
        digest = await trio.to_thread.run_sync(source.hash)
    except BaseException:
        source.close()
        raise
    return Content(source.size, digest, None, source)
