"""The core against itself and against hand-made wire, in memory, with a clock turned by hand.

`Talk` is a `ClientSession` whose server is the test: messages are packed and unpacked here, by
`msgpack` alone, so that the two codecs of the core cannot be wrong together. `Pair` is a
`ClientConnection` and a `ServerConnection` joined byte by byte.
"""

from __future__ import annotations

import base64
import itertools
from collections.abc import Iterator
from typing import Any, TypeVar

import msgpack

from pie_proto import commands as c
from pie_proto import events as e
from pie_proto.connection import ClientConnection
from pie_proto.dialects import Dialect
from pie_proto.dialects.instance import INSTANCE
from pie_proto.events import NEED_DATA
from pie_proto.limits import DEFAULT_LIMITS, Limits
from pie_proto.server import ServerConnection
from pie_proto.session import ClientSession

KIB = 1024
CHUNK = 256 * KIB
CHALLENGE = bytes(range(48))
OPEN = "Authenticated (Engine disabled authentication)"
A = "11111111-1111-4111-8111-111111111111"
B = "22222222-2222-4222-8222-222222222222"

Message = dict[str, Any]
T = TypeVar("T")

MAX_STEPS = 200_000


def wire(kind: str, /, **fields: Any) -> bytes:
    """One message as it stands on the wire, made without the core."""
    return msgpack.packb({"type": kind, **fields})


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def content(size: int, seed: int = 0) -> bytes:
    """``size`` bytes that differ from place to place, so that a chunk out of place shows."""
    return b"".join(n.to_bytes(4, "big") for n in range(seed, seed + size // 4 + 1))[:size]


def program(data: c.Buffer) -> c.UploadProgram:
    return c.UploadProgram(size=memoryview(data).nbytes, hash=c.hash_of(data), data=data)


def blob(instance_id: str, data: c.Buffer) -> c.UploadBlob:
    return c.UploadBlob(
        instance_id=instance_id, size=memoryview(data).nbytes, hash=c.hash_of(data), data=data
    )


def only(items: list[T]) -> T:
    """The one item there is."""
    assert len(items) == 1, items
    return items[0]


class Talk:
    """A `ClientSession`, and its server by hand."""

    def __init__(self, limits: Limits = DEFAULT_LIMITS, *, authenticated: bool = True) -> None:
        self.session = ClientSession(limits=limits)
        self.now = 0.0
        if authenticated:
            request_id = self.ask(c.Identify("ada"))
            self.respond(request_id, OPEN)
            assert self.events() == [e.Authenticated(request_id, e.Authentication.ASSERTED)]
            self.sent()

    def ask(self, command: c.Command) -> int:
        request_id = self.session.send(command, self.now)
        assert request_id is not None
        return request_id

    def tell(self, kind: str, /, **fields: Any) -> None:
        self.session.receive_message(wire(kind, **fields), self.now)

    def respond(self, request_id: int, result: str = "", *, ok: bool = True) -> None:
        self.tell("response", corr_id=request_id, successful=ok, result=result)

    def result(self, kind: str, request_id: int, message: str, *, ok: bool = True) -> None:
        self.tell(f"instance_{kind}_result", corr_id=request_id, successful=ok, message=message)

    def stdout(self, instance_id: str, text: str) -> None:
        self.tell("streaming_output", instance_id=instance_id, output={"Stdout": text})

    def happen(self, instance_id: str, code: int, text: str = "") -> None:
        self.tell("instance_event", instance_id=instance_id, event=code, message=text)

    def blob_chunk(
        self, instance_id: str, data: bytes, index: int, total: int, piece: bytes
    ) -> None:
        self.tell(
            "download_blob",
            corr_id=0,
            instance_id=instance_id,
            blob_hash=c.hash_of(data),
            chunk_index=index,
            total_chunks=total,
            chunk_data=piece,
        )

    def events(self) -> list[e.ClientEvent]:
        """All that happened, as far as it can be told now."""
        happened: list[e.ClientEvent] = []
        while (event := self.session.next_event()) is not NEED_DATA:
            happened.append(event)
            if isinstance(event, e.ConnectionClosed):
                break
        return happened

    def read(self, instance_id: str) -> list[tuple[str, str | bytes]]:
        """All that is unread of one instance: the names of the events, and their data."""
        read = []
        while (event := self.session.read_instance(instance_id)) is not None:
            read.append((event.event.name, event.data))
        return read

    def next_sent(self) -> Message | None:
        parts = self.session.message_to_send(self.now)
        return None if parts is None else msgpack.unpackb(b"".join(parts))

    def sent(self) -> list[Message]:
        """All messages that can be sent now, as a server would read them."""
        messages = []
        while (message := self.next_sent()) is not None:
            messages.append(message)
        return messages

    def launch(self, instance_id: str = A) -> str:
        """Have an attached instance."""
        request_id = self.ask(c.LaunchFromRegistry(name="echo"))
        self.sent()
        self.result("launch", request_id, instance_id)
        assert self.events() == [e.Launched(request_id, instance_id, False)]
        return instance_id


class Pair:
    """A client and a server joined in memory. ``cuts`` are the sizes in which bytes arrive."""

    def __init__(
        self,
        *,
        limits: Limits = DEFAULT_LIMITS,
        server_limits: Limits = DEFAULT_LIMITS,
        cuts: Iterator[int] | None = None,
        dialect: Dialect = INSTANCE,
        blob_type: type[e.Blob] = e.Blob,
    ) -> None:
        self.now = 0.0
        self.cuts = cuts or itertools.repeat(1 << 30)
        entropy = _Entropy()
        self.client = ClientConnection(
            "localhost",
            now=0.0,
            dialect=dialect,
            limits=limits,
            entropy=entropy,
            blob_type=blob_type,
        )
        self.server = ServerConnection(now=0.0, dialect=dialect, limits=server_limits)
        self.client_over = self.server_over = False
        self.client_events: list[e.ClientEvent] = []
        self.server_events: list[e.ServerEvent] = []
        self.to_server = bytearray()
        self.to_client = bytearray()
        """All that was sent, to be looked at and replayed."""

    def shuttle(self, max_bytes: int | None = None) -> None:
        """Carry bytes both ways until nothing moves. What is told is kept in the lists."""
        for _ in range(MAX_STEPS):
            up = self.client.data_to_send(max_bytes, now=self.now)
            for piece in self._cut(up):
                self.server.receive_data(piece, self.now)
                self.drain_server()
            self.drain_server()
            down = self.server.data_to_send(max_bytes, now=self.now)
            for piece in self._cut(down):
                self.client.receive_data(piece, self.now)
                self.drain_client()
            self.drain_client()
            self.to_server += up
            self.to_client += down
            if not up and not down:
                return
        raise AssertionError("it never ends")

    def _cut(self, data: bytes) -> Iterator[bytes]:
        while data:
            size = next(self.cuts)
            yield data[:size]
            data = data[size:]

    def drain_client(self) -> None:
        while not self.client_over and (event := self.client.next_event()) is not NEED_DATA:
            self.client_events.append(event)
            self.client_over = isinstance(event, e.ConnectionClosed)

    def drain_server(self) -> None:
        while not self.server_over and (event := self.server.next_event()) is not NEED_DATA:
            self.server_events.append(event)
            if isinstance(event, e.HandshakeReceived):
                self.server.accept()
            self.server_over = isinstance(event, e.ConnectionClosed)

    def told(self) -> list[e.ClientEvent]:
        """Shuttle, and what the client was told since the last time."""
        self.shuttle()
        told, self.client_events = self.client_events, []
        return told

    def asked(self) -> list[e.ServerEvent]:
        """Shuttle, and what the server was asked since the last time."""
        self.shuttle()
        asked, self.server_events = self.server_events, []
        return asked

    def ask(self, command: c.Command) -> int:
        request_id = self.client.send(command, self.now)
        assert request_id is not None
        return request_id

    def request(self, command: c.Command, outcome: type[e.Outcome], *fields: Any) -> e.ClientEvent:
        """Ask, have the server answer with ``outcome(id, *fields)``, and be told of it."""
        request_id = self.ask(command)
        assert only(self.asked()) == e.Request(request_id, command)
        answer: Any = outcome(request_id, *fields)
        self.server.answer(answer)
        return self.told()[-1]

    def read(self, instance_id: str) -> list[tuple[str, str | bytes]]:
        """All that is unread of one instance: the names of the events, and their data."""
        read = []
        while (event := self.client.read_instance(instance_id)) is not None:
            read.append((event.event.name, event.data))
        return read


class _Entropy:
    """Mask keys that are the same in every run."""

    def __init__(self) -> None:
        self._count = 0x1234_5678

    def __call__(self, size: int) -> bytes:
        self._count = self._count * 1_103_515_245 + 12_345 & 0xFFFF_FFFF
        return self._count.to_bytes(4, "big")[:size]


def connected(**options: Any) -> Pair:
    """A pair whose handshake is done."""
    pair = Pair(**options)
    assert pair.told() == [e.Connected()]
    pair.asked()
    return pair


def authenticated(**options: Any) -> Pair:
    """A pair whose client is accepted."""
    pair = connected(**options)
    outcome = pair.request(c.Identify("ada"), e.Authenticated, e.Authentication.ASSERTED)
    assert isinstance(outcome, e.Authenticated)
    return pair
