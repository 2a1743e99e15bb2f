"""The other side of a random walk: a server that is honest, and one that says anything."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import msgpack

from pie_proto import commands as c
from pie_proto import events as e
from pie_proto.detached import Launching
from pie_proto.dialects import Dialect
from pie_proto.dialects.process.naming import name_of
from pie_proto.events import NEED_DATA
from pie_proto.limits import Limits
from pie_proto.server.session import ServerSession
from tests.proto.pair import A, B, content, wire

STRAY = "33333333-3333-4333-8333-333333333333"
INSTANCES = [A, B, STRAY]


class Server(Protocol):
    """The other side of a walk."""

    def hear(self, payload: bytes) -> None:
        """Take one message of the client's."""

    def think(self) -> None:
        """Do something about what was asked."""

    def emit(self) -> None:
        """Have an instance say something."""

    def said(self) -> Iterator[bytes | str]:
        """All messages that are to be sent, once."""

    @property
    def instances(self) -> Sequence[str]:
        """Ids that are worth a try."""


class Honest:
    """A server of one family. It answers all that it is asked, once, in an order of its own."""

    def __init__(self, chance: random.Random, dialect: Dialect) -> None:
        self.chance = chance
        self.abilities = dialect.capabilities
        self.session = ServerSession(dialect=dialect, limits=Limits(upload_bytes=300_000))
        self.asked: list[tuple[int, c.Command]] = []
        self.decided: list[e.Outcome] = []
        self.running: dict[str, e.InstanceInfo] = {}
        self.attached: set[str] = set()
        self.dying: list[str] = []
        self.greeted = False
        self.made: dict[int, str] = {}
        """What was launched, by request."""
        self.ids = [STRAY]
        self.unread: list[e.ServerEvent] = []

    @property
    def instances(self) -> Sequence[str]:
        free = [name for name in self.running if name not in self.attached]
        return [*self.ids[-2:], *list(self.running)[-3:], *free[-2:]]

    def hear(self, payload: bytes) -> None:
        self.session.receive_message(payload)
        self.listen()

    def listen(self) -> None:
        while (event := self.session.next_event()) is not NEED_DATA:
            match event:
                case e.Request(request_id=int() as request_id, command=command):
                    self.asked.append((request_id, command))
                case e.Request():  # nothing answers it
                    pass
                case _:
                    self.unread.append(event)

    def said(self) -> Iterator[bytes | str]:
        while (message := self.session.message_to_send()) is not None:
            yield message if isinstance(message, str) else b"".join(message)

    def think(self) -> None:
        """What is decided first is not told first."""
        chance = self.chance
        if self.asked and (chance.random() < 0.5 or not self.decided):
            self.decided.append(self.outcome(*self.asked.pop(chance.randrange(len(self.asked)))))
        elif self.decided:
            self.session.answer(self.decided.pop(chance.randrange(len(self.decided))))
            self.listen()

    def outcome(self, request_id: int, command: c.Command) -> e.Outcome:
        no = e.Failed(request_id, command, "no")
        match command:
            case c.Ping():
                return e.Pong(request_id)
            case c.Identify() | c.AuthenticateWithToken():
                how = e.Authentication.ALREADY if self.greeted else e.Authentication.ASSERTED
                self.greeted = True
                return e.Authenticated(request_id, how)
            case c.Query() if self.chance.random() < 0.7:
                return e.QueryAnswered(request_id, "{}")
            case c.ProgramExists():
                return e.ProgramExistsAnswered(request_id, self.chance.random() < 0.5)
            case c.UploadProgram():
                return e.ProgramUploaded(request_id, command.hash)
            case c.UploadBlob():
                return e.BlobUploaded(request_id)
            case c.ListInstances():
                return e.InstancesListed(request_id, tuple(self.running.values()))
            case c.LaunchInstance() | c.LaunchFromRegistry() if self.chance.random() < 0.8:
                return self.launch(request_id, command)
            case c.AttachInstance(instance_id):
                if instance_id not in self.running or instance_id in self.attached:
                    return no
                self.attached.add(instance_id)
                return e.Attached(request_id, instance_id)
            case c.TerminateInstance(instance_id):
                if instance_id not in self.running and not self.abilities.terminates_unknown:
                    return no
                self.running.pop(instance_id, None)
                self.dying.append(instance_id)
                return e.Terminated(request_id)
            case _:
                return no

    def launch(self, request_id: int, command: Launching) -> e.Outcome:
        instance_id = str(uuid.UUID(int=self.chance.getrandbits(128)))
        if isinstance(command, c.LaunchInstance):
            program_name = str(name_of(command.hash))
        else:
            program_name = f"{command.name.partition('@')[0]}@0.1.0"
        self.running[instance_id] = e.InstanceInfo(
            id=instance_id,
            arguments=command.arguments,
            status="Detached" if command.detached else "Attached",
            program=program_name,
            input=command.input,
        )
        self.ids.append(instance_id)
        self.made[request_id] = instance_id
        if command.detached and not self.abilities.detached_launch_has_id:
            return e.LaunchedUnnamed(request_id)
        if not command.detached:
            self.attached.add(instance_id)
        return e.Launched(request_id, instance_id, command.detached)

    def emit(self) -> None:
        chance = self.chance
        if self.dying and chance.random() < 0.5:
            self.end(self.dying.pop(), e.Event.Aborted)
            return
        heard = [name for name in self.running if self.session.owns(name)]
        if chance.random() < 0.05:
            for instance_id in self.running.keys() - self.attached:
                del self.running[instance_id]
        if not heard:
            return
        instance_id = chance.choice(heard)
        match chance.randrange(8):
            case 0:
                self.end(instance_id, chance.choice([e.Event.Completed, e.Event.Exception]))
            case 1:
                data = content(chance.randrange(1, 3000))
                self.session.emit(e.InstanceEvent(instance_id, e.Event.Blob, data))
            case _:
                kind = chance.choice([e.Event.Stdout, e.Event.Stderr, e.Event.Message])
                self.session.emit(e.InstanceEvent(instance_id, kind, "x" * chance.randrange(300)))

    def end(self, instance_id: str, how: e.Event) -> None:
        self.running.pop(instance_id, None)
        if self.session.owns(instance_id):
            self.session.emit(e.InstanceEvent(instance_id, how, "end"))
        elif instance_id in self.attached:  # its launch or attach is decided, and not yet told
            self.dying.append(instance_id)

    def answer_all(self) -> None:
        while self.asked or self.decided:
            self.think()

    def end_all(self) -> None:
        for instance_id in (*self.running, *self.dying):
            self.end(instance_id, e.Event.Completed)
        self.dying.clear()


class Vocabulary(NamedTuple):
    """How a server that need not be right says what it says."""

    identification: str
    answer: Callable[[dict[str, Any], int, bool, str], bytes]
    """What was asked, the id, yes or no, and the text."""
    event: Callable[[random.Random, str], bytes]
    blob: Callable[[str, dict[str, object]], bytes]
    notice: Callable[[str], bytes | str]


def instance_answer(asked: dict[str, Any], request_id: int, ok: bool, text: str) -> bytes:
    kind = asked["type"]
    if kind == "list_instances":
        row = {"id": A, "arguments": [], "status": "Attached"}
        return wire("live_instances", corr_id=request_id, instances=[row])
    if kind.startswith(("launch", "attach")):
        form = f"instance_{kind.partition('_')[0]}_result"
        return wire(form, corr_id=request_id, successful=ok, message=text)
    return wire("response", corr_id=request_id, successful=ok, result=text)


def instance_event(chance: random.Random, instance_id: str) -> bytes:
    if chance.random() < 0.2:
        code = chance.randrange(6)
        return wire("instance_event", instance_id=instance_id, event=code, message="end")
    output = {chance.choice(["Stdout", "Stderr"]): "x" * chance.randrange(300)}
    return wire("streaming_output", instance_id=instance_id, output=output)


def process_answer(asked: dict[str, Any], request_id: int, ok: bool, text: str) -> bytes:
    if asked["type"] == "list_processes" and ok:
        rows = [
            {"id": name, "program": "echo@0.1.0", "input": "{}"}
            for name in INSTANCES[: request_id % 4]
        ]
        text = json.dumps(rows)
    elif ok and asked.get("capture_outputs") is False:
        text = ""
    return wire("response", corr_id=request_id, ok=ok, result=text)


def process_event(chance: random.Random, instance_id: str) -> bytes:
    kinds = ["stdout", "stderr", "message", "news"] * 3 + ["return", "error"]
    value = chance.choice(["Signal", "x" * chance.randrange(300)])
    return wire("process_event", process_id=instance_id, event=chance.choice(kinds), value=value)


VOCABULARIES = {
    "instance": Vocabulary(
        "identification",
        instance_answer,
        instance_event,
        lambda instance_id, chunk: wire(
            "download_blob",
            corr_id=0,
            instance_id=instance_id,
            blob_hash=chunk["hash"],
            chunk_index=chunk["index"],
            total_chunks=chunk["total"],
            chunk_data=chunk["data"],
        ),
        lambda text: wire("server_event", message=text),
    ),
    "process": Vocabulary(
        "auth_identify",
        process_answer,
        process_event,
        lambda instance_id, chunk: wire(
            "file",
            process_id=instance_id,
            file_hash=chunk["hash"],
            chunk_index=chunk["index"],
            total_chunks=chunk["total"],
            chunk_data=chunk["data"],
            name=chunk["name"],
        ),
        lambda text: json.dumps({"type": "error", "message": text}),
    ),
}
IDENTIFICATIONS = {words.identification for words in VOCABULARIES.values()}
NOISE: list[bytes | str] = [
    wire("news"),
    wire("mcp_request", corr_id=1),
    "",
    "{",
    "[1]",
    '{"type": "turn_done"}',
    '{"type": "error"}',
    '{"type": "error", "message": 1}',
]
GARBAGE = [b"", b"\xc1", b"\x80", wire("response"), wire("response", corr_id="1", ok=1), b"\x93"]


class Hostile:
    """A server that says anything: mostly what fits, or would have fitted elsewhere."""

    instances = (*INSTANCES, *(str(uuid.UUID(int=number)) for number in range(5)))

    def __init__(self, chance: random.Random, dialect: Dialect) -> None:
        self.chance = chance
        self.words = VOCABULARIES[dialect.capabilities.name.partition("-")[0]]
        self.asked: list[dict[str, Any]] = []
        self.saying: list[bytes | str] = []
        self.known = {A}
        self.last_id = 1

    def hear(self, payload: bytes) -> None:
        message = msgpack.unpackb(payload)
        if "corr_id" not in message:
            return
        self.last_id = max(self.last_id, message["corr_id"])
        is_last = message.get("chunk_index", 0) + 1 >= message.get("total_chunks", 1)
        if is_last or self.chance.random() < 0.1:
            self.asked.append(message)

    def said(self) -> Iterator[bytes | str]:
        said, self.saying = self.saying, []
        yield from said

    def think(self) -> None:
        chance = self.chance
        if not self.asked:
            return
        place = chance.randrange(len(self.asked))
        # What is answered once may be answered again.
        message = self.asked[place] if chance.random() < 0.1 else self.asked.pop(place)
        request_id, kind = message["corr_id"], str(message["type"])
        is_short = message.get("chunk_index", 0) != message.get("total_chunks", 1) - 1
        ok = chance.random() < (0.02 if is_short else 0.7)
        if chance.random() < 0.02:
            request_id = chance.randrange(1, self.last_id + 1)
        reason = chance.choice(["no", f"Instance not owned by client: {A}", "Out-of-order chunk"])
        if kind == self.words.identification:
            ok = chance.random() < 0.95
        elif kind in IDENTIFICATIONS and chance.random() < 0.95:
            return
        if kind.startswith("launch"):
            yes = chance.choice([name for name in self.instances if name not in self.known] or [A])
            self.known.add(yes)
        else:
            said = {"query": "true", "check_program": "false"}
            yes = said.get(kind, "Already authenticated")
        self.saying.append(self.words.answer(message, request_id, ok, yes if ok else reason))

    def emit(self) -> None:
        chance, words = self.chance, self.words
        strangers = chance.random() < 0.02
        instance_id = chance.choice(self.instances if strangers else sorted(self.known))
        match chance.randrange(20):
            case 0 | 1 | 2:
                self.blob(instance_id, content(chance.randrange(1, 3000)))
            case 3 | 4:
                self.saying.append(words.notice("stream aborted"))
            case 5:
                self.saying.append(chance.choice(NOISE))
            case 6 if chance.random() < 0.1:
                self.saying.append(chance.choice(GARBAGE))
            case _:
                self.saying.append(words.event(chance, instance_id))

    def blob(self, instance_id: str, data: bytes) -> None:
        chance = self.chance
        total, index = 1, 0
        if chance.random() < 0.1:
            total, index = chance.randrange(3), chance.randrange(2)
        chunk = {"hash": c.hash_of(data), "index": index, "total": total, "data": data}
        chunk["name"] = chance.choice([None, "", "a/b", "n" * 5000])
        self.saying.append(self.words.blob(instance_id, chunk))
