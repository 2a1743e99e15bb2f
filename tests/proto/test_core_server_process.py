"""The server's side for the dialect `process`: slots, silence, text messages, and who is heard."""

from __future__ import annotations

import json
import random
from typing import Any

import msgpack
import pytest

from pie_proto import commands as c
from pie_proto import events as e
from pie_proto.connection import ClientConnection
from pie_proto.dialects import Dialect
from pie_proto.dialects.instance import INSTANCE
from pie_proto.dialects.process import PROCESS_0_3, PROCESS_0_5
from pie_proto.errors import LocalProtocolError
from pie_proto.events import NEED_DATA, Authentication, Closer, ConnectionClosed, Event
from pie_proto.link import TransportAction
from pie_proto.server import Refusal, ServerConnection, ServerSession
from pie_proto.states import ServerAuthenticationState
from tests.proto.pair import CHALLENGE, A, B, Message, b64, only, wire

DONE = {"type": "turn_done"}
DATA = b"abc"
HASH = c.hash_of(DATA)


class Served:
    """A `ServerSession` of these families, and its client by hand."""

    def __init__(self, dialect: Dialect = PROCESS_0_5) -> None:
        self.session = ServerSession(dialect=dialect)

    def tell(self, kind: str, /, **fields: Any) -> None:
        self.session.receive_message(wire(kind, **fields))

    def program(self, request_id: int, index: int, total: int, data: bytes = b"") -> None:
        self.tell(
            "add_program", corr_id=request_id, program_hash=HASH, manifest="m",
            force_overwrite=True, chunk_index=index, total_chunks=total, chunk_data=data,
        )  # fmt: skip

    def file(self, instance_id: str, index: int, total: int, data: bytes) -> None:
        self.tell(
            "transfer_file", process_id=instance_id, file_hash=HASH,
            chunk_index=index, total_chunks=total, chunk_data=data,
        )  # fmt: skip

    def asked(self) -> list[e.ServerEvent]:
        asked: list[e.ServerEvent] = []
        while (event := self.session.next_event()) is not NEED_DATA:
            asked.append(event)
        return asked

    def said(self) -> list[Message]:
        """All that was said: what is in a text message, and what is in a binary one."""
        said = []
        while (message := self.session.message_to_send()) is not None:
            if isinstance(message, str):
                said.append(json.loads(message))
            else:
                said.append(msgpack.unpackb(b"".join(message)))
        assert self.session.unsent_bytes == 0
        return said

    def launch(self, instance_id: str = A) -> None:
        self.tell("launch_process", corr_id=5, inferlet="x", input="{}", capture_outputs=True)
        only(self.asked())
        self.session.answer(e.Launched(5, instance_id, False))
        assert self.said() == [response(5, instance_id)]

    def refused(self, request_id: int) -> str:
        """The words of a refusal, with which that is done."""
        assert self.asked() == []
        answer, done = self.said()
        assert (answer["corr_id"], answer["ok"], done) == (request_id, False, DONE)
        return str(answer["result"])


def response(request_id: int, result: str) -> Message:
    return {"type": "response", "corr_id": request_id, "ok": True, "result": result}


# ---------------------------------------------------------------------------------- authentication


def test_whom_the_opening_request_has_named_is_accepted_from_the_start() -> None:
    served = Served()
    assert served.session.authentication_state is ServerAuthenticationState.ACCEPTED
    served.tell("ping", corr_id=1)
    assert served.asked() == [e.Request(1, c.Ping())]
    served.tell("auth_identify", corr_id=2, username="ada")
    assert served.asked() == [e.Request(2, c.Identify("ada"))]
    served.session.answer(e.Authenticated(2, Authentication.ASSERTED))
    assert served.said() == [response(2, "Already authenticated"), DONE]


def test_older_servers_of_the_family_ask_for_a_signature() -> None:
    served = Served(PROCESS_0_3)
    served.tell("auth_identify", corr_id=1, username="ada")
    served.tell("auth_prove", corr_id=2, signature="AAAA")
    assert served.asked() == [e.Request(1, c.Identify("ada"))]
    served.session.answer(e.ChallengeReceived(1, CHALLENGE))
    assert served.asked() == [e.Request(2, c.AnswerChallenge(bytes(3)))]
    served.session.answer(e.Authenticated(2, Authentication.PROVED))
    assert served.said() == [response(1, b64(CHALLENGE)), DONE, response(2, "Authenticated"), DONE]


def test_older_servers_of_the_family_know_a_token() -> None:
    served = Served(PROCESS_0_3)
    served.tell("auth_by_token", corr_id=1, token="wrong")
    command = c.AuthenticateWithToken("wrong")
    assert served.asked() == [e.Request(1, command)]
    served.session.answer(e.Failed(1, command, "Invalid token"))
    assert served.refused(1) == "Invalid token"
    assert served.session.finished


def test_a_first_word_of_the_other_family_is_dropped_without_an_answer() -> None:
    """A client that does not know the family says both, back to back."""
    for dialect in (PROCESS_0_3, PROCESS_0_5):
        served = Served(dialect)
        served.session.receive_message(INSTANCE.encode(c.Identify("ada"), 1))
        served.session.receive_message(dialect.encode(c.Identify("ada"), 2))
        assert served.asked() == [
            e.UnknownMessage("identification"),
            e.Request(2, c.Identify("ada")),
        ]
        assert served.said() == []


# ----------------------------------------------------------------------------------- text messages


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (b"\xc1", "is not MessagePack"),
        (wire("dance"), "dance"),
        (wire("ping"), "'corr_id' is missing"),
        ("[]", "is list, not an object"),
        ("{", "is not JSON"),
        ('{"type": 1}', "'type' is int"),
    ],
)
def test_what_cannot_be_read_is_answered_in_a_text_message_once_something_could_be(
    payload: bytes | str, words: str
) -> None:
    served = Served()
    for _ in range(3):
        served.session.receive_message(payload)
        assert isinstance(only(served.asked()), e.UnknownMessage)
    assert served.said() == []
    served.session.receive_message(wire("ping", corr_id=1))
    assert only(served.asked()) == e.Request(1, c.Ping())
    served.session.receive_message(payload)
    assert isinstance(only(served.asked()), e.UnknownMessage)
    error = only(served.said())
    assert error["type"] == "error"
    assert error["message"].startswith("bad client frame: ")
    assert words in error["message"]
    assert not served.session.finished


def test_a_text_message_is_json_and_read_like_any_other() -> None:
    served = Served()
    served.session.receive_message('{"type": "ping", "corr_id": 3}')
    assert served.asked() == [e.Request(3, c.Ping())]


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("kind", [bytes, str])
def test_a_message_over_the_servers_bound_is_refused_and_ends_the_session_if_it_is_the_first(
    first: bool, kind: type[bytes] | type[str]
) -> None:
    served = Served()
    if not first:
        served.tell("ping", corr_id=1)
        served.asked()
    size = PROCESS_0_5.capabilities.frame_bytes + 1
    served.session.receive_message(bytes(size) if kind is bytes else "x" * size)
    assert isinstance(only(served.asked()), e.UnknownMessage)
    assert "7340033 bytes" in only(served.said())["message"]
    assert served.session.finished is first


def test_a_message_at_the_servers_bound_is_read() -> None:
    served = Served()
    served.launch()
    most = PROCESS_0_5.capabilities.frame_bytes
    frame = len(wire("signal_process", process_id=A, message="x" * 70_000)) - 70_000
    message = wire("signal_process", process_id=A, message="x" * (most - frame))
    assert len(message) == most
    served.session.receive_message(message)
    assert only(served.asked()) == e.Request(None, c.SendMessage(A, "x" * (most - frame)))


def test_a_notice_is_an_error_in_a_text_message() -> None:
    served = Served()
    served.session.notify("Grüße")
    assert served.said() == [{"type": "error", "message": "Grüße"}]
    with pytest.raises(LocalProtocolError, match="cannot be UTF-8"):
        served.session.notify("\ud800")
    assert served.said() == []


# ------------------------------------------------------------------------------------ what is done


def test_every_answer_and_every_signal_is_followed_by_word_that_it_is_done() -> None:
    served = Served()
    served.tell("ping", corr_id=1)
    served.asked()
    served.session.answer(e.Pong(1))
    assert served.said() == [response(1, "Pong"), DONE]
    served.tell("signal_process", process_id=A, message="to nobody")
    assert served.asked() == []
    assert served.said() == [DONE]


def test_a_launch_is_done_when_its_instance_ends() -> None:
    served = Served()
    served.launch(A)
    served.session.emit(e.InstanceEvent(A, Event.Stdout, "x"))
    served.session.emit(e.InstanceEvent(A, Event.Aborted, "Signal termination"))
    out, end, done = served.said()
    assert (out["event"], end["event"], end["value"], done) == ("stdout", "error", "Signal", DONE)
    served.tell("launch_process", corr_id=6, inferlet="x", input="{}", capture_outputs=False)
    served.asked()
    served.session.answer(e.Launched(6, B, True))
    assert served.said() == [response(6, ""), DONE]


def test_a_refusal_is_worded_by_the_family() -> None:
    served = Served()
    served.tell("attach_process", corr_id=1, process_id=A)
    served.tell("terminate_process", corr_id=2, process_id="zz")
    served.tell("check_program", corr_id=3, name="echo", version="1")
    served.asked()
    served.session.refuse(1, Refusal.TAKEN)
    assert served.refused(1) == "Cannot attach: already attached"
    served.session.refuse(2, Refusal.MALFORMED_ID)
    assert served.refused(2) == "Invalid process ID"
    served.session.refuse(3, Refusal.PROGRAM_NAME, "echo@1")
    assert served.refused(3) == "Invalid program identifier echo@1"


# ----------------------------------------------------------------------------------------- uploads


def test_programs_are_put_together_by_their_requests() -> None:
    served = Served()
    for index in range(3):
        for request_id in (1, 2):
            served.program(request_id, index, 3, DATA[index : index + 1])
    first, second = served.asked()
    assert isinstance(first, e.Request)
    assert isinstance(second, e.Request)
    assert (first.request_id, second.request_id) == (1, 2)
    assert isinstance(first.command, c.UploadProgram)
    assert (first.command.data, first.command.manifest) == (DATA, "m")
    # Of what is whole, the answer is still to come.
    assert served.said() == 4 * [DONE]
    served.session.answer(e.ProgramUploaded(1, HASH))
    assert served.said() == [response(1, "Program installed successfully"), DONE]


@pytest.mark.parametrize("misfit", [(0, 9), (2, 4), (1, 5)])
def test_a_chunk_that_does_not_fit_is_dropped_in_silence_with_the_upload(
    misfit: tuple[int, int],
) -> None:
    served = Served()
    served.program(1, 0, 4, b"a")
    served.program(1, *misfit, b"x")
    assert served.asked() == []
    assert served.said() == [DONE, DONE]
    served.program(1, 3, 4, b"c")
    assert served.refused(1) == "First chunk index must be 0"
    # Now the slot is free.
    served.program(1, 0, 1, DATA)
    assert len(served.asked()) == 1


def test_a_last_chunk_that_does_not_fit_is_refused_in_words() -> None:
    served = Served()
    served.program(1, 0, 3, b"a")
    served.program(1, 2, 3, b"c")
    assert served.asked() == []
    assert served.said().pop(0) == DONE
    served.program(2, 0, 1, b"other")
    assert served.refused(2).startswith(f"Program hash mismatch: declared {HASH}, uploaded ")
    served.program(3, 1, 0)
    assert served.refused(3) == "First chunk index must be 0"


def test_files_are_kept_apart_by_instance_and_never_answered() -> None:
    served = Served()
    served.launch(A)
    served.launch(B)
    for index in range(3):
        for instance_id in (A, B):
            served.file(instance_id, index, 3, DATA[index : index + 1])
    assert served.asked() == [
        e.Request(None, c.UploadBlob(instance_id=instance_id, size=3, hash=HASH))
        for instance_id in (A, B)
    ]
    assert served.said() == 6 * [DONE]
    # Not even when they are refused.
    served.file(A, 2, 3, b"c")
    served.file("nobody's", 0, 1, DATA)
    assert served.asked() == []
    assert served.said() == 2 * [DONE]


@pytest.mark.parametrize("seed", range(6))
def test_whatever_a_client_says_each_message_is_done_once(seed: int) -> None:
    """Read or not, fitting or not: once all is answered and over, nothing is left to be done."""
    chance = random.Random(seed)
    served = Served()
    running: list[str] = []
    told: list[Message] = []
    unread = 0
    for request_id in range(1, 400):
        index, total = chance.randrange(3), chance.randrange(4)
        match chance.randrange(6):
            case 0:
                served.tell("ping", corr_id=request_id)
            case 1:
                launch = {"inferlet": "x", "input": "{}", "capture_outputs": True}
                served.tell("launch_process", corr_id=request_id, **launch)
            case 2:
                served.program(chance.randrange(500, 505), index, total, DATA[index : index + 1])
            case 3:
                instance_id = chance.choice([*running, A])
                served.file(instance_id, index, total, DATA[index : index + 1])
            case 4:
                served.tell("signal_process", process_id=chance.choice([*running, B]), message="")
            case _:
                served.session.receive_message(chance.choice([b"", b"\xc1", "{}", wire("dance")]))
        pending: list[e.Request] = []
        for event in served.asked():
            if isinstance(event, e.UnknownMessage):
                unread += 1
            elif isinstance(event, e.Request) and event.request_id is not None:
                pending.append(event)
        for request in pending:
            assert request.request_id is not None
            if isinstance(request.command, c.LaunchFromRegistry):
                running.append(f"instance {request_id}")
                served.session.answer(e.Launched(request.request_id, running[-1], False))
            else:
                served.session.answer(e.Failed(request.request_id, request.command, "no"))
        if running and chance.random() < 0.3:
            served.session.emit(e.InstanceEvent(running.pop(0), Event.Completed, ""))
        told += served.said()
    for instance_id in running:
        served.session.emit(e.InstanceEvent(instance_id, Event.Completed, ""))
    told += served.said()
    errors = sum(message["type"] == "error" for message in told)
    assert unread - errors in {0, 1}  # the first message of all is dropped in silence
    assert told.count(DONE) == 399 - unread


# ---------------------------------------------------------------------------------- the connection


class Pair:
    """A client and a server of these families, whose handshake is done."""

    def __init__(self, dialect: Dialect) -> None:
        self.client = ClientConnection("localhost", "/v1/ws", now=0.0, dialect=dialect)
        self.server = ServerConnection(now=0.0, dialect=dialect)
        assert isinstance(self.asked(), e.HandshakeReceived)
        self.server.accept()
        assert self.told() == e.Connected()

    def asked(self) -> e.ServerEvent | e.NeedData:
        self.server.receive_data(self.client.data_to_send(now=0.0), 0.0)
        return self.server.next_event()

    def told(self) -> e.ClientEvent | e.NeedData:
        self.client.receive_data(self.server.data_to_send(now=0.0), 0.0)
        return self.client.next_event()


def test_text_messages_cross_a_connection_and_its_close() -> None:
    pair = Pair(PROCESS_0_5)
    pair.server.notify("x" * 10_000)
    assert pair.told() == e.ServerNotice("x" * 10_000)
    pair.server.notify("bye")
    pair.server.close(1001, now=0.0)
    assert pair.told() == e.ServerNotice("bye")
    assert pair.told() == ConnectionClosed(by=Closer.REMOTE, code=1001)


@pytest.mark.parametrize("dialect", [PROCESS_0_3, PROCESS_0_5])
def test_a_close_is_answered_or_the_transport_just_ends(dialect: Dialect) -> None:
    pair = Pair(dialect)
    pair.client.close(now=0.0)
    assert pair.asked() == ConnectionClosed(by=Closer.REMOTE, code=1000)
    assert pair.server.transport_action() is TransportAction.CLOSE
    last_words = pair.server.data_to_send(now=0.0)
    assert bool(last_words) is dialect.capabilities.answers_close
    # Either way it is the clean end that the client asked for.
    pair.client.receive_data(last_words, 0.0)
    pair.client.receive_eof(0.0)
    assert pair.client.next_event() == ConnectionClosed(by=Closer.LOCAL, code=1000)
