"""Random walks: a caller who does anything at any time, against a server that says anything.

Whatever happens, nothing but the documented leaves the core, and its accounts stay true.
"""

from __future__ import annotations

import random
import uuid

import msgpack
import pytest

from pie_proto import commands as c
from pie_proto import events as e
from pie_proto.errors import ConnectFailed, ConnectionLost, LocalProtocolError, RemoteProtocolError
from pie_proto.events import NEED_DATA, ConnectionClosed
from pie_proto.limits import Limits
from pie_proto.server.session import ServerSession
from pie_proto.session import ClientSession
from pie_proto.transfers import Upload
from tests.proto.pair import A, B, Talk, authenticated, blob, content, program

LIMITS = Limits(
    unread_bytes=2000,
    unread_low_bytes=900,
    held_bytes=3000,
    unsent_bytes=3000,
    pending_requests=30,
    assembling_bytes=12_000,
    blob_bytes=5000,
)
ENDED = (ConnectionLost, RemoteProtocolError, ConnectFailed)
BLOBS = [content(size, seed) for seed, size in enumerate((0, 1, 262_144, 262_145, 700_000))]
INSTANCES = [A, B, "33333333-3333-4333-8333-333333333333"]


class Walk:
    """One random walk of a client session."""

    def __init__(self, seed: int, *, honest: bool) -> None:
        self.chance = random.Random(seed)
        self.talk = Talk(LIMITS)
        self.session: ClientSession = self.talk.session
        self.honest = honest
        self.ids = [1]
        self.unanswered: list[dict[str, object]] = []
        self.now = 0.0
        self.over = False
        self.outcomes: list[e.Outcome] = []

    def command(self) -> c.Command:
        chance = self.chance
        instance_id = chance.choice(INSTANCES)
        data = chance.choice(BLOBS)
        pulled = chance.random() < 0.3
        commands: list[c.Command] = [
            c.Ping(),
            c.Query("s", "r"),
            c.ListInstances(),
            c.ProgramExists(c.hash_of(data)),
            c.LaunchFromRegistry(name="echo"),
            c.LaunchInstance(hash=c.hash_of(data), detached=chance.random() < 0.2),
            c.AttachInstance(instance_id),
            c.TerminateInstance(instance_id),
            c.SendMessage(instance_id, "x" * chance.randrange(600)),
            program(data) if not pulled else c.UploadProgram(size=len(data), hash=c.hash_of(data)),
            blob(instance_id, data),
            blob(instance_id, data),
            blob(instance_id, chance.choice(BLOBS)),
            c.Identify("again"),
            c.AnswerChallenge(b"x"),
        ]
        return chance.choice(commands)

    def ask(self) -> None:
        try:
            request_id = self.session.send(self.command(), self.now)
        except LocalProtocolError:
            return
        except ENDED:
            assert self.over or self.session.closing
            return
        if request_id is not None:
            self.ids.append(request_id)

    def pull(self) -> None:
        parts = self.session.message_to_send(self.now)
        if parts is None:
            return
        message = msgpack.unpackb(b"".join(parts))
        if message["type"] != "signal_instance":
            last = message.get("chunk_index", 0) + 1 >= message.get("total_chunks", 1)
            if last or self.chance.random() < 0.1:
                self.unanswered.append(message)

    def answer(self) -> None:
        """As a server would that is honest: about what was asked; or of that kind, at least."""
        chance = self.chance
        if not self.unanswered:
            return
        message = self.unanswered.pop(chance.randrange(len(self.unanswered)))
        request_id, kind = message["corr_id"], str(message["type"])
        short = message.get("chunk_index", 0) != message.get("total_chunks", 1) - 1  # type: ignore[operator]
        ok = chance.random() < 0.7 and not (short and kind.startswith("upload"))
        reason = chance.choice(["no", f"Instance not owned by client: {A}", "Out-of-order chunk"])
        if not self.honest and chance.random() < 0.05:
            request_id, ok = chance.choice(self.ids), True
        if kind.startswith("launch"):
            instance_id = chance.choice(INSTANCES)
            text = instance_id if ok else reason
            self.talk.result("launch", request_id, text, ok=ok)  # type: ignore[arg-type]
        elif kind.startswith("attach"):
            self.talk.result("attach", request_id, "Instance attached", ok=ok)  # type: ignore[arg-type]
        elif kind == "list_instances":
            self.talk.tell("live_instances", corr_id=request_id, instances=[])
        else:
            text = {"query": "true", "identification": "Already authenticated"}.get(kind, "x")
            self.talk.respond(request_id, text if ok else reason, ok=ok)  # type: ignore[arg-type]

    def emit(self) -> None:
        chance = self.chance
        instance_id = chance.choice(INSTANCES)
        match chance.randrange(8):
            case 0:
                self.talk.happen(instance_id, chance.randrange(1, 6), "end")
            case 1:
                data = content(chance.randrange(1, 3000))
                self.talk.blob_chunk(instance_id, data, 0, 1, data)
            case 2 if not self.honest:
                data = content(100)
                self.talk.blob_chunk(
                    instance_id, data, chance.randrange(2), chance.randrange(3), data[:50]
                )
            case _:
                self.talk.stdout(instance_id, "x" * chance.randrange(300))

    def drain(self) -> None:
        try:
            while (event := self.session.next_event()) is not NEED_DATA:
                assert not self.over
                self.over = isinstance(event, ConnectionClosed)
                if hasattr(event, "request_id"):
                    self.outcomes.append(event)
        except ENDED:
            assert self.over

    def read(self) -> None:
        try:
            self.session.read_instance_many(self.chance.choice(INSTANCES), self.chance.randrange(9))
        except ENDED:
            assert self.over

    def step(self) -> None:
        chance, session = self.chance, self.session
        self.now += chance.random()
        choice = chance.randrange(100)
        if choice < 25:
            self.ask()
        elif choice < 50:
            self.pull()
        elif choice < 62:
            self.answer()
        elif choice < 72:
            self.emit()
        elif choice < 84:
            self.drain()
        elif choice < 90:
            self.read()
        elif choice < 94:
            session.cancel(chance.choice(self.ids), self.now)
        elif choice < 96:
            for want in session.chunks_wanted():
                session.provide_chunk(want.request_id, bytes(want.length))
        elif choice < 97:
            session.discard(chance.choice(INSTANCES))
        elif choice < 98:
            if self.outcomes:
                session.abandon(self.outcomes.pop(), self.now)
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
            LIMITS.event_cost_bytes + len(event.data) for box in boxes for event in box.events
        )
        assert mailboxes.assembling_bytes == sum(
            assembly.cost for box in boxes for assembly in box.blobs.values()
        )
        outbox = self.session._outbox
        held_up = [m for lane in outbox._lanes.values() for m in lane if not isinstance(m, Upload)]
        unsent = [*held_up, *outbox._urgent]
        assert outbox.unsent_bytes == sum(len(message.payload) for message in unsent)
        assert self.session.statistics().requests_pending <= LIMITS.pending_requests

    def finish(self) -> None:
        """An honest server answers what is left; then nothing may be stuck."""
        session = self.session
        for _ in range(3000):
            for want in session.chunks_wanted():
                session.provide_chunk(want.request_id, bytes(want.length))
            self.pull()
            self.answer()
            self.drain()
            for instance_id in INSTANCES:
                if not self.over:
                    session.read_instance_many(instance_id, 100)
        if not self.over and not session.closing:
            assert not session.has_message_to_send
            assert session.statistics().unsent_bytes == 0
            outbox = session._outbox
            assert not outbox._lanes
            assert not outbox._active
            assert all(slot.holder is None and slot.leftover for slot in outbox._slots.values())


@pytest.mark.parametrize("seed", range(30))
def test_an_honest_server_leaves_nothing_stuck(seed: int) -> None:
    walk = Walk(seed, honest=True)
    for _ in range(500):
        walk.step()
        walk.check()
    walk.finish()
    walk.check()


@pytest.mark.parametrize("seed", range(30))
def test_a_server_that_says_anything_breaks_nothing(seed: int) -> None:
    walk = Walk(seed, honest=False)
    for _ in range(500):
        walk.step()
        walk.check()
    walk.drain()


@pytest.mark.parametrize("seed", range(20))
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
