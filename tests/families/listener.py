"""A listener that answers opening requests by hand, by their path, and notes what it was asked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import Final, TypeAlias

import anyio
from anyio.abc import SocketStream

from tests.anyio.proxies import peer
from tests.proto.websocket_wire import answer_101, frame

__all__ = ["NOT_FOUND", "Answer", "Listener", "Talk", "http", "listening", "say", "saying"]

Talk: TypeAlias = Callable[[SocketStream, bytes], Awaitable[None]]
Answer: TypeAlias = bytes | Talk
"""An HTTP answer, or what is done with a connection and the head of what was asked on it."""

_GONE: Final = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError)


def http(status: int, body: str = "", headers: Mapping[str, str] | None = None) -> bytes:
    """An HTTP answer that opens no WebSocket."""
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", body]).encode()


NOT_FOUND: Final = http(404, "nothing here")


def say(*messages: bytes | str) -> bytes:
    """The frames of messages: ``bytes`` are binary ones, ``str`` text."""
    return b"".join(
        frame(0x82, said, masked=False)
        if isinstance(said, bytes)
        else frame(0x81, said.encode(), masked=False)
        for said in messages
    )


def saying(data: bytes = b"", *, hangs_up: bool = False) -> Talk:
    """Open a WebSocket and send ``data`` once the client has said anything.

    Then hang up, or wait until it says good-bye.
    """

    async def talk(stream: SocketStream, head: bytes) -> None:
        await stream.send(answer_101(head))
        said = await stream.receive()
        await stream.send(data)
        while not (hangs_up or _is_close(said)):
            said = await stream.receive()

    return talk


def _is_close(said: bytes) -> bool:
    """Whether what a client said ends with a Close frame that has a code and no reason."""
    return said[-8:-6] == b"\x88\x82"


class Listener:
    """Answers what is asked at a path with what there is for it, or 404."""

    def __init__(self, answers: Mapping[str, Answer]) -> None:
        self.uri = ""
        self.asked: list[str] = []
        """The request lines."""
        self.headers: list[dict[str, str]] = []
        self.connections = 0
        self._answers = answers
        self._open = 0
        self._changed = anyio.Event()

    async def handle(self, stream: SocketStream) -> None:
        """One connection, up to its end."""
        self.connections += 1
        self._open += 1
        async with stream:
            with suppress(*_GONE):
                await self._answer(stream)
        self._open -= 1
        self._changed.set()

    async def _answer(self, stream: SocketStream) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += await stream.receive()
        first, *lines = head.decode().split("\r\n\r\n")[0].split("\r\n")
        self.asked.append(first)
        pairs = (line.partition(": ") for line in lines)
        self.headers.append({name.lower(): value for name, _, value in pairs})
        answer = self._answers.get(first.split()[1], NOT_FOUND)
        if isinstance(answer, bytes):
            await stream.send(answer)
        else:
            await answer(stream, head)

    async def nobody_left(self) -> None:
        """Wait until every connection is over."""
        while self._open:
            self._changed = anyio.Event()
            await self._changed.wait()


@asynccontextmanager
async def listening(answers: Mapping[str, Answer]) -> AsyncIterator[Listener]:
    """The listener, while it listens."""
    listener = Listener(answers)
    async with peer(listener.handle) as port:
        listener.uri = f"ws://127.0.0.1:{port}"
        yield listener
