"""Random walks: a caller who does anything at any time, against a server that says anything.

Whatever happens, nothing but the documented leaves the core, and its accounts stay true.
"""

from __future__ import annotations

import random
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import msgpack
import pytest

from pie_proto import commands as c
from pie_proto import events as e
from pie_proto.dialects import Dialect
from pie_proto.dialects.instance import INSTANCE
from pie_proto.dialects.process import PROCESS_0_3, PROCESS_0_5
from pie_proto.errors import ConnectFailed, ConnectionLost, LocalProtocolError, RemoteProtocolError
from pie_proto.events import NEED_DATA, ConnectionClosed
from pie_proto.limits import Limits
from pie_proto.server.session import ServerSession
from pie_proto.session import ClientSession
from pie_proto.transfers import Upload
from tests.proto.pair import A, authenticated, blob, content, program
from tests.proto.walk_servers import INSTANCES, Honest, Hostile, Server

LIMITS = Limits(
    unread_bytes=2000,
    unread_low_bytes=900,
    held_bytes=8000,
    unsent_bytes=3000,
    pending_requests=30,
    assembling_bytes=12_000,
    blob_bytes=5000,
)
ENDED = (ConnectionLost, RemoteProtocolError, ConnectFailed)
BLOBS = [content(size, seed) for seed, size in enumerate((0, 1, 262_144, 262_145, 700_000))]
FAMILIES: tuple[Dialect, ...] = (INSTANCE, PROCESS_0_3, PROCESS_0_5)
FAMILY_NAMES = ["instance", "process-0.3", "process-0.5"]
PROGRAMS = [b"\0asm", *(b"\0asm" + data for data in BLOBS[2:])]
MANIFEST = '[package]\nname = "echo"\nversion = "0.1.0"\n'


class Walk:
    """One random walk of a client session. ``families`` are those it thinks possible."""

    def __init__(self, chance: random.Random, families: Sequence[Dialect], server: Server) -> None:
        self.chance = chance
        self.server = server
        self.session = ClientSession(dialect=families, limits=LIMITS)
        self.now = 0.0
        self.over = False
        self.accepted: dict[int, c.Command] = {}
        self.contents: dict[int, bytes] = {}
        """What is uploaded piece by piece, by request."""
        self.outcomes: dict[int, e.Outcome] = {}
        self.given_up: set[int] = set()
        self.opened: Counter[str] = Counter()
        """How often an instance was told to be attached now."""
        self.ended: Counter[str] = Counter()
        """How often it was read that one has ended."""
        self.left: set[str] = set()
        """Those whose events nobody here wants any more."""
        self.readable: set[str] = set()

    def command(self) -> tuple[c.Command, bytes]:
        chance = self.chance
        instance_id = chance.choice(self.server.instances)
        data, code = chance.choice(BLOBS), chance.choice(PROGRAMS)
        is_detached = chance.random() < 0.4
        arguments = chance.choice([(), ("--n", "1"), ("stray",)])
        manifest = chance.choice([None, None, MANIFEST, "nothing"])
        name = chance.choice(["echo", "echo@0.1.0", "other", ""])
        commands: list[c.Command] = [
            c.Ping(),
            c.Query("model_status", "r"),
            c.ListInstances(),
            c.ProgramExists(chance.choice([c.hash_of(code), "echo@0.1.0", "echo"])),
            c.LaunchFromRegistry(name=name, arguments=arguments, detached=is_detached),
            # Equal ones, which are not easily told apart.
            c.LaunchFromRegistry(name="echo", detached=is_detached),
            c.LaunchFromRegistry(name="echo", detached=is_detached),
            c.LaunchInstance(hash=c.hash_of(code), arguments=arguments, detached=is_detached),
            c.LaunchInstance(hash=c.hash_of(code), input='{"n": 1}', detached=is_detached),
            c.AttachInstance(instance_id),
            c.TerminateInstance(instance_id),
            c.SendMessage(instance_id, "x" * chance.randrange(600)),
            replace(program(code), manifest=manifest),
            program(code),
            blob(instance_id, data),
            blob(instance_id, data),
            c.Identify("again"),
            c.AnswerChallenge(b"x"),
            c.AuthenticateWithToken("t"),
        ]
        command = chance.choice(commands)
        if isinstance(command, c.UploadCommand) and chance.random() < 0.3:
            return replace(command, data=None), bytes(command.data or b"")
        return command, b""

    def ask(self) -> None:
        command, streamed = self.command()
        self.send(command, streamed)

    def send(self, command: c.Command, streamed: bytes = b"") -> None:
        try:
            request_id = self.session.send(command, self.now)
        except LocalProtocolError:
            return
        except ENDED:
            assert self.over or self.session.closing
            return
        if request_id is not None:
            assert request_id not in self.accepted
            self.accepted[request_id] = command
            self.contents[request_id] = streamed

    def provide(self, *, right: bool = True) -> None:
        for want in self.session.chunks_wanted():
            data = self.contents[want.request_id][want.offset : want.offset + want.length]
            try:
                self.session.provide_chunk(want.request_id, data if right else bytes(len(data)))
            except LocalProtocolError:  # that is not what these servers can use
                self.cancel(want.request_id)

    def pull(self) -> None:
        parts = self.session.message_to_send(self.now)
        if parts is not None:
            self.server.hear(b"".join(parts))

    def carry(self) -> None:
        for message in self.server.said():
            self.session.receive_message(message, self.now)

    def drain(self) -> None:
        try:
            while (event := self.session.next_event()) is not NEED_DATA:
                assert not self.over
                self.told(event)
        except ENDED:
            assert self.over

    def told(self, event: e.ClientEvent) -> None:
        match event:
            case ConnectionClosed():
                self.over = True
            case e.InstanceReadable(instance_id):
                self.readable.add(instance_id)
            case e.ServerNotice() | e.UnknownMessage() | e.Connected():
                pass
            case e.LaunchedUnnamed():
                raise AssertionError("what was launched is to be found here")
            case _:
                request_id = event.request_id
                assert request_id in self.accepted
                assert request_id not in self.outcomes
                assert request_id not in self.given_up
                self.outcomes[request_id] = event
                if isinstance(event, e.Attached) or (
                    isinstance(event, e.Launched) and not event.detached
                ):
                    self.opened[event.instance_id] += 1
                    self.left.discard(event.instance_id)

    def read(self, instance_id: str, count: int) -> None:
        events: list[e.InstanceEvent] = []
        try:
            events = self.session.read_instance_many(instance_id, count)
        except ENDED:
            assert self.over
        if len(events) < count:
            self.readable.discard(instance_id)
        self.ended[instance_id] += sum(event.event.is_terminal for event in events)

    def cancel(self, request_id: int) -> None:
        # What was decoded before is told; behind it, nothing is.
        self.drain()
        if request_id in self.accepted and request_id not in self.outcomes:
            self.given_up.add(request_id)
        self.session.cancel(request_id, self.now)

    def discard(self, instance_id: str) -> None:
        self.drain()
        self.left.add(instance_id)
        self.session.discard(instance_id)

    def abandon(self) -> None:
        if self.outcomes:
            outcome = self.outcomes[self.chance.choice(list(self.outcomes)[-5:])]
            if isinstance(outcome, e.Launched | e.Attached):
                self.left.add(outcome.instance_id)
            self.session.abandon(outcome, self.now)

    def step(self) -> None:
        chance, session = self.chance, self.session
        self.now += chance.random()
        choice = chance.randrange(100)
        if choice < 22:
            self.ask()
        elif choice < 47:
            self.pull()
        elif choice < 61:
            self.server.think()
            self.carry()
        elif choice < 71:
            self.server.emit()
            self.carry()
        elif choice < 82:
            self.drain()
        elif choice < 89:
            readable = [*sorted(self.readable), chance.choice(self.server.instances)]
            self.read(chance.choice(readable), chance.randrange(1, 9))
        elif choice < 93:
            self.cancel(chance.choice([1, *list(self.accepted)[-10:]]))
        elif choice < 96:
            self.provide(right=chance.random() < 0.9)
        elif choice < 97:
            instance_id = chance.choice(self.server.instances)
            if chance.random() < 0.5:
                self.discard(instance_id)
            else:
                session.stream_blobs(instance_id)
        elif choice < 98:
            self.abandon()
        elif choice < 99:
            deadline = session.next_deadline()
            self.now = self.now if deadline is None else max(deadline, self.now)
            session.handle_timeout(self.now)
        elif chance.random() < 0.02:
            session.close(self.now)

    def check(self) -> None:
        mailboxes = self.session._mailboxes
        boxes = mailboxes._boxes.values()
        assert mailboxes.unread_bytes == sum(box.unread_bytes for box in boxes)
        assert mailboxes.unread_bytes == sum(
            LIMITS.event_cost_bytes + len(event.data) + len(getattr(event.data, "name", "") or "")
            for box in boxes
            for event in box.events
        )
        assert mailboxes.assembling_bytes == sum(
            assembly.cost for box in boxes for assembly in box.blobs.values()
        )
        assert (mailboxes._held_bytes > 0) == bool(mailboxes._held)
        outbox = self.session._outbox
        held_up = [m for lane in outbox._lanes.values() for m in lane if not isinstance(m, Upload)]
        unsent = [*held_up, *outbox._urgent]
        assert outbox.unsent_bytes == sum(len(message.payload) for message in unsent)
        assert self.session.statistics().requests_pending <= LIMITS.pending_requests

    def run(self, steps: int = 500) -> None:
        for _ in range(steps):
            self.step()
            self.check()

    def end(self) -> None:
        """The connection is lost. What was received is told, and nothing is left."""
        self.session.receive_end(ConnectionClosed(by=e.Closer.REMOTE), self.now)
        self.drain()
        assert self.over
        for instance_id in self.server.instances:
            self.read(instance_id, 1000)
        self.check()
        numbers = self.session.statistics()
        assert (numbers.requests_pending, numbers.unread_bytes) == (0, 0)
        assert self.session._mailboxes.assembling_bytes == 0
        assert not self.session._mailboxes._held
        # One that is attached anew may end anew.
        assert self.ended <= self.opened


def settle(walk: Walk, server: Honest) -> None:
    """Go on until nothing moves: all is sent, answered and read, whoever waits for whom."""
    for _ in range(1000):
        walk.provide()
        while walk.session.has_message_to_send:
            walk.pull()
        server.answer_all()
        walk.carry()
        walk.drain()
        for instance_id in sorted(walk.readable):
            walk.read(instance_id, 1000)
        walk.drain()  # reading may have been paused
        walk.check()
        if not (walk.session.has_message_to_send or walk.session.chunks_wanted() or walk.readable):
            return
    raise AssertionError("it never ends")


def known(seed: int, dialect: Dialect) -> tuple[Dialect, ...]:
    """The families that the client of a walk is open to."""
    return (dialect,) if seed % 3 else FAMILIES


def honest_walk(seed: int, dialect: Dialect) -> None:
    chance = random.Random(seed)
    server = Honest(chance, dialect)
    walk = Walk(chance, known(seed, dialect), server)
    walk.send(c.Identify("ada"))
    while walk.session.has_message_to_send:
        walk.pull()
    server.answer_all()
    walk.carry()
    walk.drain()
    assert walk.session.server == dialect.capabilities
    server.unread.clear()  # words of other families
    walk.run()
    session = walk.session
    settle(walk, server)
    server.end_all()
    settle(walk, server)
    assert server.unread == []
    assert not walk.over
    for request_id, outcome in walk.outcomes.items():
        match outcome:
            case e.Launched(instance_id=instance_id):
                assert instance_id == server.made[request_id]
            case e.Failed(reason=reason):  # all that runs was launched here, so it can be told
                assert "nothing tells which" not in reason
            case _:
                pass
    if not session.closing:
        assert walk.outcomes.keys() | walk.given_up == walk.accepted.keys()
        assert len(session._requests) == 0
        numbers = session.statistics()
        assert (numbers.unsent_bytes, numbers.unread_bytes) == (0, 0)
        outbox = session._outbox
        assert not outbox._lanes
        assert not outbox._active
        assert all(slot.holder is None and slot.leftover for slot in outbox._slots.values())
        for instance_id in walk.opened.keys() - walk.left:
            assert walk.ended[instance_id] == 1
    walk.end()


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("dialect", FAMILIES, ids=FAMILY_NAMES)
def test_an_honest_server_leaves_nothing_stuck(seed: int, dialect: Dialect) -> None:
    honest_walk(seed, dialect)


def hostile_walk(seed: int, dialect: Dialect) -> None:
    chance = random.Random(seed)
    walk = Walk(chance, known(seed, dialect), Hostile(chance, dialect))
    walk.send(c.Identify("again"))
    walk.run()
    walk.end()


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("dialect", FAMILIES, ids=FAMILY_NAMES)
def test_a_server_that_says_anything_breaks_nothing(seed: int, dialect: Dialect) -> None:
    hostile_walk(seed, dialect)


@pytest.mark.slow
@pytest.mark.parametrize("walk", [honest_walk, hostile_walk])
@pytest.mark.parametrize("dialect", FAMILIES, ids=FAMILY_NAMES)
def test_many_more_walks(walk: Callable[[int, Dialect], None], dialect: Dialect) -> None:
    for seed in range(12, 120):
        walk(seed, dialect)


@pytest.mark.parametrize("seed", range(12))
def test_a_client_that_says_anything_breaks_no_server(seed: int) -> None:
    chance = random.Random(seed)
    session = ServerSession(limits=Limits(upload_bytes=1000))
    owned: list[str] = []
    pending: list[tuple[int, c.Command]] = []

    def message() -> bytes:
        corr_id = chance.randrange(20)
        instance_id = chance.choice([*INSTANCES, "not a uuid"])
        total, index = chance.randrange(4), chance.randrange(4)
        data = content(chance.randrange(500))
        chunk = {"chunk_index": index, "total_chunks": total, "chunk_data": data}
        kinds: list[dict[str, object]] = [
            {"type": "identification", "username": "ada"},
            {"type": "internal_authenticate", "token": "t"},
            {"type": "signature", "signature": chance.choice(["", "!", "AAAA", "é"])},
            {"type": "ping"},
            {"type": "query", "subject": "program_exists", "record": "h"},
            {
                "type": "launch_instance_from_registry",
                "inferlet": "x",
                "arguments": [],
                "detached": False,
            },
            {"type": "attach_instance", "instance_id": instance_id},
            {"type": "signal_instance", "instance_id": instance_id, "message": "m"},
            {"type": "upload_program", "program_hash": c.hash_of(data), **chunk},
            {
                "type": "upload_blob",
                "instance_id": instance_id,
                "blob_hash": c.hash_of(data),
                **chunk,
            },
            {"type": "upload_blob", "instance_id": instance_id, "blob_hash": "same", **chunk},
            {"type": "nonsense"},
        ]
        chosen = kinds[0] if chance.random() < 0.2 else chance.choice(kinds)
        return msgpack.packb({"corr_id": corr_id, **chosen})

    for _ in range(400):
        match chance.randrange(4):
            case 0 | 1:
                session.receive_message(message())
            case 2:
                event = session.next_event()
                if isinstance(event, e.Request) and event.request_id is not None:
                    pending.append((event.request_id, event.command))
            case _ if pending:
                request_id, command = pending.pop(chance.randrange(len(pending)))
                outcome: e.Outcome = e.Authenticated(request_id, e.Authentication.ASSERTED)
                if isinstance(command, c.LaunchFromRegistry):
                    outcome = e.Launched(request_id, chance.choice(INSTANCES), False)
                    owned.append(outcome.instance_id)
                elif type(command) not in {c.Identify, c.AuthenticateWithToken, c.AnswerChallenge}:
                    outcome = e.Failed(request_id, command, "no")
                session.answer(outcome)
            case _:
                session.message_to_send()
    assert session.unsent_bytes >= 0
    assert all(session.owns(instance_id) for instance_id in owned)


class PairWalk:
    """A random walk of both sides, joined byte by byte: uploads above all, begun and given up."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.pair = authenticated()
        self.pair.request(c.LaunchFromRegistry(name="echo"), e.Launched, A, False)
        self.uploads: dict[int, c.UploadCommand] = {}
        self.given_up: set[int] = set()
        self.to_answer: list[e.Request] = []
        self.outcomes: dict[int, e.ClientEvent] = {}
        self.alive = {A}
        self.launched = 0

    def step(self) -> None:
        chance, pair = self.chance, self.pair
        match chance.randrange(12):
            case 0 | 1:
                data = chance.choice(BLOBS)
                instance_id = chance.choice(sorted(self.alive))
                command = chance.choice([program(data), blob(instance_id, data)])
                try:
                    request_id = pair.ask(command)
                except LocalProtocolError:  # its end has come, and nobody has read it
                    return
                self.uploads[request_id] = command
            case 2 if self.uploads:
                request_id = chance.choice(sorted(self.uploads))
                if request_id not in self.outcomes:
                    self.given_up.add(request_id)
                    pair.client.cancel(request_id, 0.0)
            case 3 if len(self.alive) < 3:
                self.launched += 1
                pair.ask(c.LaunchFromRegistry(name=f"new {self.launched}"))
            case 4 if len(self.alive) > 1 and chance.random() < 0.5:
                ended = chance.choice(sorted(self.alive))
                self.alive.remove(ended)
                pair.server.emit(e.InstanceEvent(ended, e.Event.Completed, ""))
            case 5 if self.to_answer:
                self.answer(self.to_answer.pop(chance.randrange(len(self.to_answer))))
            case 6 | 7 | 8:
                data = pair.client.data_to_send(chance.randrange(1, 300_000), now=0.0)
                pair.server.receive_data(data, 0.0)
                self.drain()
            case 9:
                pair.client.receive_data(pair.server.data_to_send(now=0.0), 0.0)
                self.drain()
            case _:
                self.drain()

    def answer(self, request: e.Request) -> None:
        request_id, command = request.request_id, request.command
        assert request_id is not None
        outcome: e.Outcome = e.Pong(request_id)
        match command:
            case c.UploadProgram():
                outcome = e.ProgramUploaded(request_id, command.hash)
            case c.UploadBlob():
                outcome = e.BlobUploaded(request_id)
            case c.LaunchFromRegistry():
                instance_id = str(uuid.UUID(int=request_id))
                outcome = e.Launched(request_id, instance_id, False)
        self.pair.server.answer(outcome)

    def drain(self) -> None:
        self.pair.drain_client()
        self.pair.drain_server()
        for event in self.pair.client_events:
            if isinstance(event, e.Launched):
                self.alive.add(event.instance_id)
            assert not isinstance(event, ConnectionClosed)
            if hasattr(event, "request_id"):
                assert event.request_id not in self.given_up
                self.outcomes[event.request_id] = event
        self.to_answer += [
            event for event in self.pair.server_events if isinstance(event, e.Request)
        ]
        self.pair.client_events.clear()
        self.pair.server_events.clear()

    def finish(self) -> None:
        for _ in range(1000):
            self.pair.shuttle()
            self.drain()
            if not self.to_answer:
                break
            self.answer(self.to_answer.pop())


@pytest.mark.parametrize("seed", [*range(11), 452])
def test_every_upload_that_is_not_given_up_arrives_unless_its_instance_is_gone(seed: int) -> None:
    walk = PairWalk(seed)
    for _ in range(250):
        walk.step()
    walk.finish()
    for request_id, command in walk.uploads.items():
        if request_id in walk.given_up:
            continue
        match walk.outcomes[request_id]:
            case e.Failed(reason=reason):
                assert isinstance(command, c.UploadBlob)
                assert reason.startswith("Instance not owned")
            case outcome:
                assert isinstance(outcome, e.ProgramUploaded | e.BlobUploaded)
    assert isinstance(walk.pair.request(c.Ping(), e.Pong), e.Pong)
