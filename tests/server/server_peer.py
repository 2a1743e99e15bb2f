"""A client for tests of the server: `ClientConnection` on a TCP stream, in the test's own task."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import anyio
from anyio import current_time
from anyio.abc import ByteStream, SocketAttribute
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pie_anyio.server import Server
from pie_proto import (
    NEED_DATA,
    Attached,
    AttachInstance,
    ClientConnection,
    ClientEvent,
    Command,
    Connected,
    ConnectionClosed,
    Event,
    Failed,
    Identify,
    Launched,
    LaunchInstance,
    Limits,
    Outcome,
    Query,
    QueryAnswered,
    SendMessage,
    UploadProgram,
    hash_of,
)
from pie_proto.dialects import Dialect
from pie_proto.dialects.instance import INSTANCE
from pie_proto.public_keys import PublicKey
from tests.programs import component

KEY = Ed25519PrivateKey.generate()
LINE = PublicKey.of(KEY.public_key()).line()
"""A user's key, and the line by which a server knows it."""

SECONDS = 20
"""Every wait of a test is over by then, or it fails."""

SAFE = Limits(unread_bytes=1 << 40, request_grace=3600.0)
"""The limits of a client that takes in whatever comes."""


class Peer:
    """One connection. It reads only while a method of its own waits."""

    def __init__(
        self,
        stream: ByteStream,
        dialect: Dialect = INSTANCE,
        target: str = "/",
        headers: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.stream = stream
        self.connection = ClientConnection(
            "test", target, now=current_time(), headers=headers, dialect=dialect, limits=SAFE
        )
        self._events: list[ClientEvent] = []
        self.last_id: int | None = None
        """The id of the last request."""

    async def event(self, wanted: Callable[[ClientEvent], bool]) -> ClientEvent:
        """The first event that is wanted; others are kept."""
        while True:
            for event in self._events:
                if wanted(event):
                    self._events.remove(event)
                    return event
            await self.turn()

    async def turn(self) -> None:
        """Send what is to be sent, and take in one event, or some bytes."""
        await self.flush()
        event = self.connection.next_event()
        if event is not NEED_DATA:
            self._events.append(event)
            return
        # What was heard may have made something to say.
        await self.flush()
        try:
            data = await self.stream.receive(262_144)
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            self.connection.receive_eof(current_time())
        else:
            self.connection.receive_data(data, current_time())

    async def flush(self) -> None:
        while data := self.connection.data_to_send(now=current_time()):
            await self.stream.send(data)

    async def tell(self, command: Command) -> int | None:
        self.last_id = self.connection.send(command, current_time())
        await self.flush()
        return self.last_id

    async def ask(self, command: Command) -> Outcome:
        request_id = await self.tell(command)
        outcome = await self.event(lambda event: getattr(event, "request_id", None) == request_id)
        assert isinstance(outcome, Outcome)
        return outcome

    async def refusal(self, command: Command) -> str:
        """Why the server says no."""
        outcome = await self.ask(command)
        assert isinstance(outcome, Failed), outcome
        return outcome.reason

    async def closed(self) -> ConnectionClosed:
        closed = await self.event(lambda event: isinstance(event, ConnectionClosed))
        assert isinstance(closed, ConnectionClosed)
        return closed

    async def upload(self, data: bytes) -> Outcome:
        return await self.ask(UploadProgram(size=len(data), hash=hash_of(data), data=data))

    async def refusal_of_upload(self, data: bytes) -> str:
        """Why the server does not take a program."""
        return await self.refusal(UploadProgram(size=len(data), hash=hash_of(data), data=data))

    async def launch(self, name: str, *arguments: str, detached: bool = False) -> str:
        """Upload and launch a test program; the id of its instance."""
        data = component(name)
        await self.upload(data)
        outcome = await self.ask(
            LaunchInstance(hash=hash_of(data), arguments=arguments, detached=detached)
        )
        assert isinstance(outcome, Launched), outcome
        return outcome.instance_id

    async def say(self, instance_id: str, text: str) -> None:
        await self.tell(SendMessage(instance_id, text))

    async def read(self, instance_id: str) -> tuple[Event, str | bytes]:
        """The next event of an instance."""
        while True:
            event = self.connection.read_instance(instance_id)
            if event is not None:
                return event.event, event.data
            await self.turn()

    async def read_to_end(self, instance_id: str) -> list[tuple[Event, str | bytes]]:
        """All further events of an instance."""
        events = [await self.read(instance_id)]
        while not events[-1][0].is_terminal:
            events.append(await self.read(instance_id))
        return events

    async def statistic(self, name: str) -> int:
        """A number from the server's table."""
        answer = await self.ask(Query("backend_stats", ""))
        assert isinstance(answer, QueryAnswered)
        rows = (line.rsplit(maxsplit=1) for line in answer.result.splitlines())
        return int({title.strip(): number for title, number in rows}[name])

    async def wait_for(self, name: str, value: int) -> None:
        """Ask until a number of the server's is as it should be."""
        while await self.statistic(name) != value:
            pass


@asynccontextmanager
async def connected(
    server: Server,
    dialect: Dialect = INSTANCE,
    target: str = "/",
    headers: Sequence[tuple[str, str]] = (),
) -> AsyncIterator[Peer]:
    """A connection on which nobody has said who they are, unless ``headers`` do."""
    stream = await anyio.connect_tcp("127.0.0.1", server.port)
    # Little fits between the two, so that a client that does not read is soon felt.
    stream.extra(SocketAttribute.raw_socket).setsockopt(
        socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024
    )
    try:
        peer = Peer(stream, dialect, target, headers)
        with anyio.fail_after(SECONDS):
            await peer.event(lambda event: isinstance(event, Connected))
            yield peer
    finally:
        await anyio.aclose_forcefully(stream)


@asynccontextmanager
async def client(server: Server, user: str = "joe") -> AsyncIterator[Peer]:
    """A connection of a user's, on a server that asks for no proof."""
    async with connected(server) as peer:
        await peer.ask(Identify(user))
        yield peer


async def attach(peer: Peer, instance_id: str) -> None:
    """Attach as soon as the server has found out that nobody is attached any more."""
    while not isinstance(await peer.ask(AttachInstance(instance_id)), Attached):
        pass


def streams(events: list[tuple[Event, str | bytes]]) -> dict[Event, str]:
    """What was printed on each stream, however it was cut."""
    joined: dict[Event, str] = {}
    for event, data in events:
        if event in {Event.Stdout, Event.Stderr}:
            joined[event] = joined.get(event, "") + str(data)
    return joined
