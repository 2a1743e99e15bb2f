"""Uploads cut into chunks on the way out, content put together from chunks on the way in."""

from __future__ import annotations

import enum
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from blake3 import blake3

from pie_proto.commands import Buffer, UploadCommand
from pie_proto.states import TRANSFER, TransferInput, TransferState, next_state

__all__ = ["Assembly", "ChunkFault", "ChunkProblem", "ChunkWanted", "Upload", "chunk_count", "cut"]


_ASSEMBLY_COST = 2048


class ChunkWanted(NamedTuple):
    """A piece of content that is about to be sent: give it with ``provide_chunk``."""

    request_id: int
    offset: int
    length: int


def chunk_count(size: int, chunk_bytes: int) -> int:
    """How many chunks carry ``size`` bytes. Empty content is one empty chunk."""
    return max(1, -(-size // chunk_bytes))


def cut(data: Buffer, chunk_bytes: int) -> Iterator[memoryview]:
    """The chunks of ``data`` in order, none of them copied. No chunk at all for empty data."""
    view = memoryview(data).cast("B")
    for start in range(0, len(view), chunk_bytes):
        yield view[start : start + chunk_bytes]


class Upload:
    """One upload under way: which chunk is next, where its bytes come from, how far it has come."""

    __slots__ = (
        "_data",
        "_next_chunk",
        "command",
        "index",
        "lane",
        "request_id",
        "state",
        "total",
        "unit",
    )

    def __init__(self, request_id: int, command: UploadCommand, chunk_bytes: int) -> None:
        self.request_id = request_id
        # Without its content: that is let go of sooner than the command is.
        self.command: UploadCommand = replace(command, data=None)
        self.unit = chunk_bytes
        self.total = chunk_count(command.size, chunk_bytes)
        self.index = 0
        self.lane: Hashable = None
        """What its order is kept with, once it is accepted for sending."""
        self.state = TransferState.QUEUED
        self._data = None if command.data is None else memoryview(command.data).cast("B")
        self._next_chunk: Buffer | None = None

    @property
    def offset(self) -> int:
        """How many bytes of content have been handed out."""
        return min(self.index * self.unit, self.command.size)

    @property
    def ready(self) -> bool:
        """Whether the next chunk is at hand."""
        return self._data is not None or self._next_chunk is not None or self.command.size == 0

    @property
    def wanted(self) -> ChunkWanted:
        """The next chunk, as the caller is asked for it."""
        length = min(self.unit, self.command.size - self.offset)
        return ChunkWanted(self.request_id, self.offset, length)

    def provide(self, data: Buffer) -> None:
        """Take the next chunk from the caller."""
        self._next_chunk = data

    def take(self) -> tuple[int, Buffer]:
        """Hand out the next chunk: its index and its bytes."""
        index = self.index
        chunk: Buffer
        if self._next_chunk is not None:
            chunk, self._next_chunk = self._next_chunk, None
        elif self._data is not None:
            chunk = self._data[self.offset : self.offset + self.unit]
        else:
            chunk = b""
        self.index += 1
        last = self.index == self.total
        self.happened(TransferInput.LAST_CHUNK if last else TransferInput.CHUNK)
        return index, chunk

    def happened(self, what: TransferInput) -> None:
        """Follow the table. Content is let go of as soon as no chunk is to be made from it."""
        state = next_state(TRANSFER, self.state, what)
        if state is None:
            raise AssertionError(f"{what} in {self.state}")
        self.state = state
        if state not in {TransferState.QUEUED, TransferState.SENDING}:
            self._data = self._next_chunk = None


class ChunkFault(enum.Enum):
    """The ways in which a chunk can fail to fit."""

    FIRST_INDEX = "the first chunk is not number 0"
    ORDER = "chunks out of order"
    TOTAL = "the number of chunks changed"
    CHUNK_SIZE = "a chunk is too large"
    SIZE = "the content is too large"
    HASH = "the content does not have the hash it was announced with"


@dataclass(frozen=True, slots=True)
class ChunkProblem:
    """Why a chunk does not fit: what was expected, what came. A dialect finds its own words."""

    fault: ChunkFault
    expected: int | str
    got: int | str

    def __str__(self) -> str:
        return f"{self.fault.value}: expected {self.expected}, got {self.got}"


class Assembly:
    """Content being put together from chunks that must come in order.

    Nothing is allocated for what is only announced. The hash is taken as chunks arrive. Content
    that is ``streamed`` is not kept: whoever gives the chunks hands them on.
    """

    __slots__ = ("_chunks", "_hasher", "_index", "hash", "name", "size", "streamed", "total")

    def __init__(
        self, content_hash: str, total: int, *, name: str | None = None, streamed: bool = False
    ) -> None:
        self.hash = content_hash
        self.name = name
        self.total = total
        self.streamed = streamed
        self.size = 0
        self._index = 0
        self._chunks: list[bytes] = []
        self._hasher = blake3()

    def add(self, index: int, total: int, data: bytes, max_size: int) -> ChunkProblem | None:
        """Take one chunk; say why if it does not fit. After a problem the assembly is useless."""
        if self._index == 0 and index != 0:
            return ChunkProblem(ChunkFault.FIRST_INDEX, 0, index)
        if total != self.total:
            return ChunkProblem(ChunkFault.TOTAL, self.total, total)
        if index != self._index or index >= total:
            return ChunkProblem(ChunkFault.ORDER, self._index, index)
        if self.size + len(data) > max_size and not self.streamed:
            return ChunkProblem(ChunkFault.SIZE, max_size, self.size + len(data))
        self._index += 1
        if data:
            self.size += len(data)
            if not self.streamed:
                self._chunks.append(data)
            self._hasher.update(data)
        if self.complete and (actual := self._hasher.hexdigest()) != self.hash:
            return ChunkProblem(ChunkFault.HASH, self.hash, actual)
        return None

    @property
    def cost(self) -> int:
        """What it takes of memory: its content, its names, and above all the state of its hash."""
        names = len(self.hash) + len(self.name or "")
        return _ASSEMBLY_COST + names + (0 if self.streamed else self.size)

    @property
    def complete(self) -> bool:
        """Whether the last chunk has come."""
        return self._index == self.total

    def content(self) -> bytes:
        """The whole content; the chunks are let go of."""
        chunks, self._chunks = self._chunks, []
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)
