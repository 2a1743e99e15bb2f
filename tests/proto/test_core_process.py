"""What a session does beyond its codec where servers know programs by name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgpack
import pytest

from pie_proto import commands as c
from pie_proto import events as e
from pie_proto.dialects import Dialect
from pie_proto.dialects.instance import INSTANCE
from pie_proto.dialects.process import PROCESS_0_3, PROCESS_0_5, ProcessDialect
from pie_proto.dialects.process.naming import name_of
from pie_proto.errors import LaunchFailed, LocalProtocolError, error_for
from pie_proto.events import NEED_DATA
from pie_proto.session import ClientSession
from pie_proto.states import InstanceState
from tests.proto import pair
from tests.proto.pair import CHUNK, OPEN, A, B, b64, content, only

WASM = b"\0asm, and the rest of it"
HASH = c.hash_of(WASM)
MANIFEST = '[package]\nname = "echo"\nversion = "0.1.0"\n'
ALREADY = "Already authenticated"
EVERY = (INSTANCE, PROCESS_0_3, PROCESS_0_5)


class Talk:
    """A session, and by hand a server that speaks `process`."""

    def __init__(
        self, dialect: Dialect | Sequence[Dialect] = PROCESS_0_5, *, authenticated: bool = True
    ) -> None:
        self.session = ClientSession(dialect=dialect)
        self.launches = 0
        if authenticated:
            self.respond(self.ask(c.Identify("ada")), ALREADY)
            self.events()
            self.sent()

    def ask(self, command: c.Command) -> int:
        request_id = self.session.send(command, 0.0)
        assert request_id is not None
        return request_id

    def tell(self, **fields: Any) -> None:
        self.session.receive_message(msgpack.packb(fields), 0.0)

    def respond(self, request_id: int, result: str = "", *, ok: bool = True) -> None:
        self.tell(type="response", corr_id=request_id, ok=ok, result=result)

    def refuse(self, request_id: int, result: str) -> None:
        self.respond(request_id, result, ok=False)

    def say(self, **fields: Any) -> None:
        self.session.receive_message(json.dumps(fields), 0.0)

    def events(self) -> list[e.ClientEvent]:
        happened: list[e.ClientEvent] = []
        while (event := self.session.next_event()) is not NEED_DATA:
            happened.append(event)
            if isinstance(event, e.ConnectionClosed):
                break
        return happened

    def sent(self) -> list[dict[str, Any]]:
        """All messages that can be sent now."""
        messages = []
        while (parts := self.session.message_to_send(0.0)) is not None:
            messages.append(msgpack.unpackb(b"".join(parts)))
        return messages

    def sent_types(self) -> list[str]:
        return [message["type"] for message in self.sent()]

    def list(self, *rows: tuple[str, str, str]) -> int:
        """Be asked what runs, and answer: id, program, input."""
        asked = only(self.sent())
        assert asked["type"] == "list_processes"
        listed = [
            {
                "id": instance_id,
                "username": "internal",
                "program": program,
                "input": given,
                "elapsed_secs": 0,
            }
            for instance_id, program, given in rows
        ]
        self.respond(asked["corr_id"], json.dumps(listed))
        return int(asked["corr_id"])

    def launch(self, *before: tuple[str, str, str], text: str = "") -> int:
        """Ask for a detached launch, up to where it has been answered without an id."""
        request_id = self.ask(detached())
        self.list(*before)
        assert self.events() == []
        sent = only(self.sent())
        assert (sent["type"], sent["corr_id"]) == ("launch_process", request_id)
        assert sent["capture_outputs"] is False
        self.respond(request_id, text)
        assert self.events() == []
        return request_id


def detached(name: str = "echo", *arguments: str) -> c.LaunchFromRegistry:
    return c.LaunchFromRegistry(name=name, arguments=arguments, detached=True)


def attached(name: str = "echo", *arguments: str) -> c.LaunchFromRegistry:
    return c.LaunchFromRegistry(name=name, arguments=arguments)


def program(data: bytes = WASM, manifest: str | None = None) -> c.UploadProgram:
    return c.UploadProgram(size=len(data), hash=c.hash_of(data), data=data, manifest=manifest)


ECHO = (A, "echo@0.1.0", "{}")
OTHER = (B, "echo@0.1.0", "{}")


# ------------------------------------------------------------------------------ which family it is


def identify(talk: Talk) -> tuple[int, int]:
    """The ids of both identifications, in the order in which they are sent."""
    request_id = talk.ask(c.Identify("ada"))
    old, new = talk.sent()
    assert (old["type"], new["type"]) == ("identification", "auth_identify")
    assert old["corr_id"] == request_id
    return request_id, new["corr_id"]


def test_before_anything_is_said_nobody_knows_what_the_server_is() -> None:
    assert Talk(EVERY, authenticated=False).session.server is None


def test_a_server_that_answers_the_old_word_is_of_the_old_family() -> None:
    talk = Talk(EVERY, authenticated=False)
    request_id, _ = identify(talk)
    talk.tell(type="response", corr_id=request_id, successful=True, result=OPEN)
    assert talk.events() == [e.Authenticated(request_id, e.Authentication.ASSERTED)]
    assert talk.session.server == INSTANCE.capabilities


@pytest.mark.parametrize(
    ("answer", "family"), [(ALREADY, PROCESS_0_5), (OPEN, PROCESS_0_3)], ids=["0.5", "0.3"]
)
def test_a_server_that_answers_the_new_word_is_of_the_new_family(
    answer: str, family: Dialect
) -> None:
    talk = Talk(EVERY, authenticated=False)
    request_id, new_id = identify(talk)
    talk.respond(new_id, answer)
    assert talk.events() == [e.Authenticated(request_id, e.Authentication.ASSERTED)]
    assert talk.session.server == family.capabilities
    assert talk.session.authentication is e.Authentication.ASSERTED
    talk.respond(talk.ask(c.Ping()), "Pong")
    assert isinstance(only(talk.events()), e.Pong)


def test_a_challenge_in_the_new_words_is_answered_in_them() -> None:
    talk = Talk(EVERY, authenticated=False)
    request_id, new_id = identify(talk)
    talk.respond(new_id, b64(b"x" * 48))
    assert talk.events() == [e.ChallengeReceived(request_id, b"x" * 48)]
    answer_id = talk.ask(c.AnswerChallenge(b"signed"))
    assert only(talk.sent())["type"] == "auth_prove"
    talk.respond(answer_id, "Authenticated")
    assert talk.events() == [e.Authenticated(answer_id, e.Authentication.PROVED)]
    assert talk.session.authentication is e.Authentication.PROVED


def test_who_was_let_in_without_a_look_at_the_signature_has_proved_nothing() -> None:
    talk = Talk(PROCESS_0_3, authenticated=False)
    talk.respond(talk.ask(c.Identify("ada")), b64(b"x" * 48))
    talk.events()
    answer_id = talk.ask(c.AnswerChallenge(b"signed"))
    talk.respond(answer_id, ALREADY)
    assert talk.events() == [e.Authenticated(answer_id, e.Authentication.ASSERTED)]


@pytest.mark.parametrize("words", ["who?", ALREADY])
def test_a_refusal_tells_the_family_too(words: str) -> None:
    talk = Talk(EVERY, authenticated=False)
    request_id, new_id = identify(talk)
    talk.refuse(new_id, words)
    assert talk.events() == [e.Failed(request_id, c.Identify("ada"), words)]
    assert talk.session.server == PROCESS_0_3.capabilities


@pytest.mark.parametrize(
    "families", [EVERY, (INSTANCE, PROCESS_0_5, PROCESS_0_3), (PROCESS_0_5, INSTANCE, PROCESS_0_3)]
)
def test_a_token_is_said_in_every_vocabulary_that_has_one_and_then_a_name(
    families: Sequence[Dialect],
) -> None:
    talk = Talk(families, authenticated=False)
    request_id = talk.ask(c.AuthenticateWithToken("t"))
    old, new, name = talk.sent()
    types = [message["type"] for message in (old, new, name)]
    assert types == ["internal_authenticate", "auth_by_token", "auth_identify"]
    talk.respond(new["corr_id"], "Authenticated")
    talk.respond(name["corr_id"], ALREADY)
    assert talk.events() == [e.Authenticated(request_id, e.Authentication.TOKEN)]
    assert talk.session.server == PROCESS_0_3.capabilities


def test_a_no_to_the_name_behind_a_token_tells_nothing() -> None:
    talk = Talk(EVERY, authenticated=False)
    request_id = talk.ask(c.AuthenticateWithToken("t"))
    _, new, name = talk.sent()
    talk.refuse(name["corr_id"], "who?")
    assert talk.events() == []
    assert talk.session.server is None
    talk.respond(new["corr_id"], "Authenticated")
    assert talk.events() == [e.Authenticated(request_id, e.Authentication.TOKEN)]


def test_a_server_that_knows_no_token_is_known_by_what_it_does_answer() -> None:
    talk = Talk(EVERY, authenticated=False)
    request_id = talk.ask(c.AuthenticateWithToken("t"))
    talk.respond(talk.sent()[-1]["corr_id"], ALREADY)
    failed = only(talk.events())
    assert isinstance(failed, e.Failed)
    assert (failed.request_id, failed.by_server) == (request_id, False)
    assert "servers 0.5 know no internal token: give a user name" in str(error_for(failed))
    assert talk.session.server == PROCESS_0_5.capabilities


def test_a_token_that_no_possible_family_knows_is_refused_before_it_is_sent() -> None:
    talk = Talk((PROCESS_0_5, ProcessDialect(PROCESS_0_5.capabilities)), authenticated=False)
    with pytest.raises(LocalProtocolError, match="know no internal token"):
        talk.ask(c.AuthenticateWithToken("t"))
    assert talk.sent() == []


def test_what_comes_before_the_answer_is_read_as_whoever_understands_it() -> None:
    talk = Talk(EVERY, authenticated=False)
    request_id, new_id = identify(talk)
    talk.tell(type="server_event", message="welcome")
    talk.say(type="turn_done")
    talk.tell(type="news")
    talk.respond(new_id + 1, "out of the blue")
    assert talk.events()[:2] == [e.ServerNotice("welcome"), e.UnknownMessage("news")]
    assert talk.session.server is None
    assert request_id < new_id


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (b"\xc1", "is not MessagePack"),
        (msgpack.packb({"type": "response", "corr_id": 1}), "'successful' is missing"),
    ],
)
def test_what_no_family_can_read_ends_the_connection_in_words_of_the_first(
    payload: bytes, words: str
) -> None:
    talk = Talk(EVERY, authenticated=False)
    identify(talk)
    talk.session.receive_message(payload, 0.0)
    closed = only(talk.events())
    assert isinstance(closed, e.ConnectionClosed)
    assert words in (closed.violation or "")


def test_what_is_uploaded_to_a_server_that_was_found_is_so_in_its_words() -> None:
    talk = Talk(EVERY, authenticated=False)
    _, new_id = identify(talk)
    talk.respond(new_id, ALREADY)
    talk.events()
    talk.ask(program())
    assert talk.sent_types() == ["add_program"]


def test_an_answer_in_words_that_were_not_said_ends_the_connection() -> None:
    talk = Talk(EVERY, authenticated=False)
    request_id, _ = identify(talk)
    talk.respond(request_id, ALREADY)
    closed = only(talk.events())
    assert isinstance(closed, e.ConnectionClosed)
    assert "words of another family" in (closed.violation or "")


def test_a_server_that_knows_none_of_the_words_says_so_to_whoever_said_them() -> None:
    talk = Talk(EVERY, authenticated=False)
    command = c.AuthenticateWithToken("t")
    request_id = talk.ask(command)
    talk.sent()
    talk.say(type="error", message="bad client frame")
    assert talk.events() == [e.Failed(request_id, command, "bad client frame")]


# --------------------------------------------------------------------- detached launches are found


def test_a_detached_launch_is_told_by_what_is_new() -> None:
    talk = Talk()
    request_id = talk.launch(OTHER)
    talk.list(OTHER, ECHO)
    assert talk.events() == [e.Launched(request_id, A, True)]


@pytest.mark.parametrize(
    ("program_name", "given"),
    [
        ("echo@0.1.0", "{}"),
        ("echo@2.0.0", "{}"),
        ("echo@0.1.0", " { } "),
        ("echo@0.1.0", ""),
    ],
)
def test_a_launch_by_name_is_any_version_of_it_with_an_equal_input(
    program_name: str, given: str
) -> None:
    talk = Talk()
    request_id = talk.launch()
    talk.list((A, program_name, given))
    assert talk.events() == [e.Launched(request_id, A, True)]


@pytest.mark.parametrize(
    ("program_name", "given"),
    [("other@0.1.0", "{}"), ("echo@0.1.0", '{"n": 1}'), ("echo@0.1.0", "{"), ("", "{}")],
)
def test_what_is_new_and_no_such_launch_is_passed_over(program_name: str, given: str) -> None:
    talk = Talk()
    request_id = talk.launch()
    talk.list((B, program_name, given), ECHO)
    assert talk.events() == [e.Launched(request_id, A, True)]


def test_a_launch_of_a_version_is_of_that_version() -> None:
    talk = Talk()
    request_id = talk.ask(detached("echo@0.1.0"))
    talk.list()
    talk.events()
    talk.sent()
    talk.respond(request_id)
    talk.events()
    talk.list((B, "echo@0.2.0", "{}"), ECHO)
    assert talk.events() == [e.Launched(request_id, A, True)]


def test_a_launch_by_hash_is_of_what_is_named_after_it() -> None:
    talk = Talk()
    request_id = talk.ask(c.LaunchInstance(hash=HASH, detached=True, input='{"a": 1}'))
    talk.list()
    talk.events()
    talk.sent()
    talk.respond(request_id)
    talk.events()
    talk.list(OTHER, (A, str(name_of(HASH)), '{"a":1}'))
    assert talk.events() == [e.Launched(request_id, A, True)]


def test_a_launch_that_is_in_no_list_has_ended_and_that_is_said() -> None:
    talk = Talk()
    request_id = talk.launch(OTHER)
    talk.list(OTHER)
    failed = only(talk.events())
    assert isinstance(failed, e.Failed)
    assert failed.request_id == request_id
    assert not failed.by_server
    error = error_for(failed)
    assert isinstance(error, LaunchFailed)
    assert "launching 'echo' from the registry: it was launched, but is in no list" in str(error)


def test_a_launch_that_cannot_be_told_from_others_fails_with_all_of_them() -> None:
    talk = Talk()
    talk.launch()
    talk.list(ECHO, OTHER)
    failed = only(talk.events())
    assert isinstance(failed, e.Failed)
    assert f"2 instances are new that could be it, and nothing tells which: {A}, {B}." in (
        failed.reason
    )


@pytest.mark.parametrize(
    ("count", "words"), [(20, "id-18, id-19. Attach"), (21, "id-19 and 1 more. Attach")]
)
def test_of_very_many_the_first_are_listed(count: int, words: str) -> None:
    talk = Talk()
    talk.launch()
    talk.list(*((f"id-{number}", "echo@0.1.0", "{}") for number in range(count)))
    failed = only(talk.events())
    assert isinstance(failed, e.Failed)
    assert words in failed.reason


def test_launches_are_sent_one_at_a_time() -> None:
    talk = Talk()
    first, second = talk.ask(detached()), talk.ask(detached())
    talk.list()
    assert talk.events() == []
    talk.sent()
    talk.respond(first)
    assert talk.events() == []
    talk.list(ECHO)
    assert talk.events() == [e.Launched(first, A, True)]
    talk.list(ECHO)
    assert talk.events() == []
    assert only(talk.sent())["corr_id"] == second
    talk.respond(second)
    assert talk.events() == []
    talk.list(ECHO, OTHER)
    assert talk.events() == [e.Launched(second, B, True)]


def test_other_commands_do_not_wait_for_a_launch() -> None:
    talk = Talk()
    talk.ask(detached())
    talk.ask(c.Ping())
    assert talk.sent_types() == ["list_processes", "ping"]


def test_an_attached_launch_meanwhile_is_told_from_it_by_its_own_answer() -> None:
    talk = Talk()
    request_id = talk.launch()
    other = talk.ask(attached())
    listing, launch = talk.sent()
    assert (listing["type"], launch["type"]) == ("list_processes", "launch_process")
    rows = [
        {"id": name, "program": "echo@0.1.0", "input": "{}", "username": "x", "elapsed_secs": 0}
        for name in (A, B)
    ]
    talk.respond(listing["corr_id"], json.dumps(rows))
    assert talk.events() == []
    talk.respond(other, B)
    assert talk.events() == [
        e.Launched(other, B, False),
        e.Launched(request_id, A, True),
    ]


def test_what_is_launched_behind_the_list_is_not_waited_for() -> None:
    talk = Talk()
    request_id = talk.launch()
    before = talk.ask(attached())
    listing, _ = talk.sent()
    talk.respond(listing["corr_id"], json.dumps([{"id": A, "program": "echo", "input": "{}"}]))
    assert talk.events() == []
    talk.ask(attached())
    talk.refuse(before, "no")
    assert talk.events() == [e.Failed(before, attached(), "no"), e.Launched(request_id, A, True)]


def test_an_attached_launch_that_was_given_up_is_told_from_it_all_the_same() -> None:
    talk = Talk()
    request_id = talk.launch()
    other = talk.ask(attached())
    talk.session.cancel(other, 0.0)
    listing, _ = talk.sent()
    rows = [{"id": name, "program": "echo@0.1.0", "input": "{}"} for name in (A, B)]
    talk.respond(listing["corr_id"], json.dumps(rows))
    assert talk.events() == []
    talk.respond(other, B)
    assert talk.events() == [e.Launched(request_id, A, True)]
    assert only(talk.sent())["type"] == "terminate_process"


def test_a_refused_launch_fails_in_the_servers_words_and_the_next_one_begins() -> None:
    talk = Talk()
    request_id, _ = talk.ask(detached()), talk.ask(detached())
    talk.list()
    talk.events()
    talk.sent()
    talk.refuse(request_id, "no such program")
    assert talk.events() == [e.Failed(request_id, detached(), "no such program")]
    assert talk.sent_types() == ["list_processes"]


@pytest.mark.parametrize("behind", [False, True], ids=["before", "behind"])
def test_a_refused_list_fails_the_launch(behind: bool) -> None:
    talk = Talk()
    request_id = talk.launch() if behind else talk.ask(detached())
    talk.refuse(only(talk.sent())["corr_id"], "too busy")
    failed = e.Failed(request_id, detached(), "asked what runs: too busy")
    assert talk.events() == [failed]
    following = talk.launch()
    talk.list(ECHO)
    assert talk.events() == [e.Launched(following, A, True)]


def test_a_launch_that_is_given_up_before_its_turn_is_forgotten() -> None:
    talk = Talk()
    first, second = talk.ask(detached()), talk.ask(detached())
    talk.session.cancel(second, 0.0)
    talk.list()
    talk.events()
    talk.sent()
    talk.respond(first)
    talk.events()
    talk.list(ECHO)
    assert talk.events() == [e.Launched(first, A, True)]
    assert talk.sent() == []


def test_a_launch_that_is_given_up_before_it_is_sent_is_not_sent() -> None:
    talk = Talk()
    first, second = talk.ask(detached()), talk.ask(detached())
    talk.session.cancel(first, 0.0)
    late, listing = talk.sent()
    assert (late["type"], listing["type"]) == ("list_processes", "list_processes")
    talk.respond(late["corr_id"], "[]")
    assert talk.events() == []
    talk.respond(listing["corr_id"], "[]")
    assert talk.events() == []
    assert only(talk.sent())["corr_id"] == second


@pytest.mark.parametrize("ok", [True, False], ids=["launched", "refused"])
def test_a_launch_that_is_given_up_under_way_runs_on_and_is_no_find_of_the_next(ok: bool) -> None:
    talk = Talk()
    first, second = talk.ask(detached()), talk.ask(detached())
    talk.list()
    talk.events()
    assert only(talk.sent())["corr_id"] == first
    talk.session.cancel(first, 0.0)
    assert talk.sent() == []
    talk.respond(first, "" if ok else "no", ok=ok)
    assert talk.events() == []
    talk.list(ECHO)
    assert talk.events() == []
    assert only(talk.sent())["corr_id"] == second


def test_for_a_launch_that_is_not_sent_no_event_is_kept() -> None:
    talk = Talk()
    talk.session.cancel(talk.ask(detached()), 0.0)
    request_id = talk.ask(attached())
    talk.refuse(request_id, "no")
    talk.events()
    talk.tell(type="process_event", process_id=A, event="stdout", value="hi")
    assert talk.events() == []
    assert talk.session.statistics().dropped_events == 1


def test_a_launch_that_is_given_up_while_it_is_looked_for_is_looked_for_no_more() -> None:
    talk = Talk()
    request_id = talk.launch()
    talk.session.cancel(request_id, 0.0)
    talk.list(ECHO)
    assert talk.events() == []
    assert talk.session.statistics().requests_pending == 0


def test_a_launch_can_be_given_up_while_another_may_yet_claim_what_it_found() -> None:
    talk = Talk()
    request_id = talk.launch()
    other = talk.ask(attached())
    listing, _ = talk.sent()
    talk.respond(listing["corr_id"], "[]")
    assert talk.events() == []
    talk.session.cancel(request_id, 0.0)
    talk.respond(other, B)
    assert talk.events() == [e.Launched(other, B, False)]


@pytest.mark.parametrize("behind", [False, True], ids=["first", "second"])
def test_a_launch_that_is_answered_before_it_is_sent_is_the_servers_fault(behind: bool) -> None:
    talk = Talk()
    if behind:
        talk.ask(detached())
        talk.list()
        talk.events()
    talk.respond(talk.ask(detached()))
    closed = only(talk.events())
    assert isinstance(closed, e.ConnectionClosed)
    assert closed.violation == "the server answered a launch before it was sent"


def test_closing_forgets_launches_that_were_not_sent() -> None:
    talk = Talk()
    talk.ask(detached())
    talk.session.close(0.0)
    talk.list()
    assert talk.events() == []
    assert talk.sent() == []


def test_a_launch_that_is_answered_when_all_is_closing_runs_and_nobody_knows_as_what() -> None:
    talk = Talk()
    request_id, _ = talk.ask(detached()), talk.ask(detached())
    talk.list()
    talk.events()
    talk.sent()
    talk.session.close(0.0)
    talk.respond(request_id)
    failed = only(talk.events())
    assert talk.sent() == []
    assert isinstance(failed, e.Failed)
    assert (failed.request_id, failed.by_server) == (request_id, False)
    assert "it was launched, but the connection was closed here" in str(error_for(failed))


def test_a_server_that_gives_an_id_to_a_detached_launch_is_believed() -> None:
    talk = Talk()
    request_id = talk.ask(detached())
    talk.list()
    talk.events()
    talk.sent()
    talk.respond(request_id, A)
    assert talk.events() == [e.Launched(request_id, A, True)]


# ------------------------------------------------------------ instances that a list has named first


def listed_before_its_answer(talk: Talk) -> tuple[int, int]:
    """Ask to attach to an instance whose launch is unanswered; the ids of launch and attach."""
    launch, attach = talk.ask(attached()), talk.ask(c.AttachInstance(A))
    talk.sent()
    return launch, attach


@pytest.mark.parametrize("launch_first", [True, False], ids=["launched", "refused"])
def test_an_instance_can_be_asked_for_before_the_answer_to_its_launch(launch_first: bool) -> None:
    talk = Talk()
    launch, attach = listed_before_its_answer(talk)
    launched = e.Launched(launch, A, False)
    reason = "Cannot attach: already attached"
    if launch_first:
        talk.respond(launch, A)
        assert talk.events() == [launched]
    talk.refuse(attach, reason)
    failed = only(talk.events())
    assert isinstance(failed, e.Failed)
    assert (failed.request_id, failed.reason) == (attach, reason)
    if not launch_first:
        talk.respond(launch, A)
        assert talk.events() == [launched]
    assert talk.session.instance_state(A) is InstanceState.ATTACHED
    talk.tell(type="process_event", process_id=A, event="stdout", value="hi")
    assert talk.events() == [e.InstanceReadable(A)]


def test_an_instance_that_is_attached_twice_is_the_servers_fault() -> None:
    talk = Talk()
    launch, attach = listed_before_its_answer(talk)
    talk.respond(launch, A)
    talk.respond(attach, "Process attached")
    launched, closed = talk.events()
    assert launched == e.Launched(launch, A, False)
    assert isinstance(closed, e.ConnectionClosed)
    assert closed.violation == f"the server attached instance {A}, which was attached already"


# --------------------------------------------------------------------------------- names and lanes


def test_a_program_that_was_uploaded_under_a_name_is_launched_and_asked_for_by_it() -> None:
    talk = Talk()
    talk.respond(talk.ask(program(manifest=MANIFEST)), "")
    talk.sent()
    talk.session.next_event()
    talk.ask(c.LaunchInstance(hash=HASH, arguments=("--n", "1")))
    talk.ask(c.ProgramExists(HASH))
    launch, check = talk.sent()
    assert (launch["inferlet"], launch["input"]) == ("echo@0.1.0", '{"n": 1}')
    assert launch["capture_outputs"] is True
    assert (check["name"], check["version"]) == ("echo", "0.1.0")


def test_a_program_that_has_a_name_is_launched_by_it_as_it_was_asked_for() -> None:
    talk = Talk()
    talk.respond(talk.ask(program(manifest=MANIFEST)), "")
    talk.sent()
    talk.events()
    talk.ask(c.LaunchInstance(hash=HASH, input='{"a": 1}', detached=True))
    talk.list()
    talk.events()
    launch = only(talk.sent())
    assert (launch["inferlet"], launch["input"]) == ("echo@0.1.0", '{"a": 1}')
    assert launch["capture_outputs"] is False


@pytest.mark.parametrize("manifest", [None, '[runtime]\nlanguage = "python"\n'])
def test_a_program_without_a_name_is_launched_by_its_hash(manifest: str | None) -> None:
    talk = Talk()
    request_id = talk.ask(program(manifest=manifest))
    assert f'name = "blake3-{HASH}"' in only(talk.sent())["manifest"]
    talk.respond(request_id, "")
    assert talk.events() == [e.ProgramUploaded(request_id, HASH)]
    launch = c.LaunchInstance(hash=HASH)
    request_id = talk.ask(launch)
    assert only(talk.sent())["inferlet"] == str(name_of(HASH))
    talk.refuse(request_id, "no")
    failed = only(talk.events())
    assert isinstance(failed, e.Failed)
    assert failed.command == launch


def test_a_launch_by_hash_that_fails_says_what_else_the_program_may_be_called() -> None:
    talk = Talk()
    request_id = talk.ask(c.LaunchInstance(hash=HASH))
    talk.refuse(request_id, "not found")
    failed = only(talk.events())
    assert isinstance(failed, e.Failed)
    assert str(error_for(failed)) == (
        f"launching program {HASH}: the server said: not found (these servers know programs by "
        "name: what was uploaded with a manifest that names it is launched from the registry, by "
        "that name)"
    )


BIG = b"\0asm" + bytes(400_000)


@pytest.mark.parametrize(
    ("upload", "launch"),
    [
        (program(BIG), c.LaunchInstance(hash=c.hash_of(BIG))),
        (program(BIG, MANIFEST), attached("echo")),
        (program(BIG, MANIFEST), attached("echo@0.1.0")),
    ],
    ids=["hash", "name", "version"],
)
@pytest.mark.parametrize("is_detached", [False, True])
def test_a_launch_goes_behind_the_upload_of_its_program(
    upload: c.UploadProgram, launch: c.LaunchInstance | c.LaunchFromRegistry, is_detached: bool
) -> None:
    talk = Talk()
    talk.ask(upload)
    if isinstance(launch, c.LaunchInstance):
        launch = c.LaunchInstance(hash=launch.hash, detached=is_detached)
    else:
        launch = c.LaunchFromRegistry(name=launch.name, detached=is_detached)
    talk.ask(launch)
    behind = "list_processes" if is_detached else "launch_process"
    assert talk.sent_types() == ["add_program", "add_program", behind]


def test_a_launch_of_another_program_does_not_wait() -> None:
    talk = Talk()
    talk.ask(program(BIG, MANIFEST))
    talk.ask(attached("other"))
    assert talk.sent_types() == ["launch_process", "add_program", "add_program"]


def test_source_that_is_streamed_without_a_manifest_is_refused_at_its_first_piece() -> None:
    talk = Talk()
    request_id = talk.ask(c.UploadProgram(size=8, hash=HASH))
    with pytest.raises(LocalProtocolError, match="a program in source needs a manifest"):
        talk.session.provide_chunk(request_id, b"def f():")
    talk.session.provide_chunk(request_id, b"\0asm....")
    assert only(talk.sent())["chunk_data"] == b"\0asm...."


@pytest.mark.parametrize(
    ("manifest", "start"), [(None, b"\0asm"), (MANIFEST, b"def ")], ids=["wasm", "source"]
)
def test_programs_are_streamed_piece_by_piece_whatever_a_later_one_begins_with(
    manifest: str | None, start: bytes
) -> None:
    talk = Talk()
    data = start + content(CHUNK)
    request_id = talk.ask(c.UploadProgram(size=len(data), hash=HASH, manifest=manifest))
    for piece in (data[:CHUNK], data[CHUNK:]):
        talk.session.provide_chunk(request_id, piece)
        assert only(talk.sent())["chunk_data"] == piece


def test_a_message_is_as_large_as_the_server_takes_and_no_larger() -> None:
    talk = Talk()
    instance_id = launched(talk)
    talk.session.send(c.SendMessage(instance_id, "x" * 70_000), 0.0)
    room = PROCESS_0_5.capabilities.frame_bytes - len(sent_bytes(talk)) + 70_000
    talk.session.send(c.SendMessage(instance_id, "x" * room), 0.0)
    assert len(sent_bytes(talk)) == PROCESS_0_5.capabilities.frame_bytes
    with pytest.raises(LocalProtocolError, match="7340033 bytes; the server takes 7340032"):
        talk.session.send(c.SendMessage(instance_id, "x" * (room + 1)), 0.0)
    assert talk.sent() == []


def sent_bytes(talk: Talk) -> bytes:
    return b"".join(talk.session.message_to_send(0.0) or ())


def test_blobs_that_are_streamed_are_whatever_they_are() -> None:
    talk = Talk()
    talk.respond(talk.ask(attached()), A)
    talk.events()
    talk.sent()
    request_id = talk.ask(c.UploadBlob(instance_id=A, size=3, hash=HASH))
    talk.session.provide_chunk(request_id, b"any")
    assert only(talk.sent())["chunk_data"] == b"any"


# ------------------------------------------------------------------------------- blobs, unconfirmed


def launched(talk: Talk) -> str:
    talk.respond(talk.ask(attached()), A)
    talk.events()
    talk.sent()
    return A


def test_a_blob_that_nothing_answers_is_done_when_its_last_chunk_is_handed_out() -> None:
    talk = Talk()
    blob = c.UploadBlob(instance_id=launched(talk), size=len(BIG), hash=c.hash_of(BIG), data=BIG)
    request_id = talk.ask(blob)
    assert talk.session.message_to_send(0.0) is not None
    assert talk.events() == []
    assert talk.session.message_to_send(0.0) is not None
    assert talk.events() == [e.BlobUploaded(request_id)]
    assert talk.session.statistics().requests_pending == 0


def test_a_blob_that_was_given_up_when_all_was_sent_is_over() -> None:
    talk = Talk()
    blob = c.UploadBlob(instance_id=launched(talk), size=3, hash=c.hash_of(b"abc"), data=b"abc")
    request_id = talk.ask(blob)
    talk.sent()
    talk.session.cancel(request_id, 0.0)
    assert talk.events() == [e.BlobUploaded(request_id)]


def test_the_same_blob_can_be_sent_again_at_once() -> None:
    talk = Talk()
    blob = c.UploadBlob(instance_id=launched(talk), size=3, hash=c.hash_of(b"abc"), data=b"abc")
    first, second = talk.ask(blob), talk.ask(blob)
    assert talk.sent_types() == ["transfer_file", "transfer_file"]
    assert talk.events() == [e.BlobUploaded(first), e.BlobUploaded(second)]


# ---------------------------------------------------------------------- errors that name no request


def error(talk: Talk, text: str = "stream aborted") -> list[e.ClientEvent]:
    talk.say(type="error", message=text)
    return talk.events()


def test_an_error_is_that_of_the_one_request_there_is() -> None:
    talk = Talk()
    request_id = talk.ask(c.Ping())
    talk.sent()
    assert error(talk) == [e.Failed(request_id, c.Ping(), "stream aborted")]
    talk.respond(request_id, "Pong")
    assert talk.events() == []


def test_an_error_that_may_be_anybodys_is_a_notice() -> None:
    talk = Talk()
    talk.ask(c.Ping())
    talk.ask(c.Ping())
    talk.sent()
    assert error(talk) == [e.ServerNotice("stream aborted")]
    assert talk.session.statistics().requests_pending == 2


def test_an_error_that_is_nobodys_is_a_notice() -> None:
    assert error(Talk()) == [e.ServerNotice("stream aborted")]


def test_what_was_not_sent_yet_cannot_be_meant() -> None:
    talk = Talk()
    request_id = talk.ask(c.Ping())
    talk.sent()
    talk.ask(program(BIG))
    talk.ask(c.ListInstances())
    talk.ask(detached())
    assert error(talk) == [e.Failed(request_id, c.Ping(), "stream aborted")]


@pytest.mark.parametrize("others", [0, 1], ids=["it", "it_or_another"])
def test_an_error_that_may_be_of_a_request_nobody_waits_for_is_a_notice(others: int) -> None:
    talk = Talk()
    request_id = talk.ask(attached())
    for _ in range(others):
        talk.ask(c.Ping())
    talk.sent()
    talk.session.cancel(request_id, 0.0)
    assert error(talk) == [e.ServerNotice("stream aborted")]
    assert talk.session.statistics().requests_pending == others


def test_an_upload_can_be_what_is_meant() -> None:
    talk = Talk()
    request_id = talk.ask(program(BIG))
    assert talk.session.message_to_send(0.0) is not None
    failed = only(error(talk))
    assert isinstance(failed, e.Failed)
    assert failed.request_id == request_id
    assert talk.sent() == []


def test_a_launch_that_is_looked_for_can_be_what_is_meant() -> None:
    talk = Talk()
    request_id = talk.ask(detached())
    talk.list()
    talk.events()
    talk.sent()
    assert error(talk) == [e.Failed(request_id, detached(), "stream aborted")]
    talk.ask(detached())
    assert talk.sent_types() == ["list_processes"]


@pytest.mark.parametrize("behind", [False, True], ids=["before", "behind"])
def test_an_error_while_a_launch_asks_what_runs_is_that_of_the_launch(behind: bool) -> None:
    talk = Talk()
    request_id = talk.launch() if behind else talk.ask(detached())
    talk.sent()
    assert error(talk) == [e.Failed(request_id, detached(), "stream aborted")]
    assert talk.session.statistics().requests_pending == 0


def test_a_launch_that_waits_for_its_turn_or_for_others_cannot_be_meant() -> None:
    talk = Talk()
    request_id = talk.launch()
    talk.ask(detached())
    other = talk.ask(attached())
    listing, _ = talk.sent()
    talk.respond(listing["corr_id"], "[]")
    assert talk.events() == []
    assert error(talk)[0] == e.Failed(other, attached(), "stream aborted")
    assert talk.session.statistics().requests_pending == 1
    assert request_id < other


def test_a_dialect_that_answers_launches_with_ids_has_nothing_to_look_for() -> None:
    info = e.InstanceInfo(id=A, arguments=("a",), status="Attached")
    assert INSTANCE.may_be_launch(attached("echo", "a"), info)
    assert not INSTANCE.may_be_launch(attached(), info)


# --- a hash in upper case ---------------------------------------------------------------------


BY_HASH: list[c.Command] = [
    c.ProgramExists(HASH),
    c.LaunchInstance(hash=HASH),
    c.LaunchInstance(hash=HASH, detached=True),
    c.LaunchFromRegistry(name=HASH),
    c.LaunchServerInstance(hash=HASH, port=8080),
    c.UploadProgram(size=len(WASM), hash=HASH, data=WASM),
]


@pytest.mark.parametrize("dialect", EVERY)
@pytest.mark.parametrize("command", BY_HASH, ids=lambda command: type(command).__name__)
def test_a_hash_in_upper_case_is_sent_as_it_is_in_lower_case(
    dialect: Dialect, command: c.Command
) -> None:
    field = "name" if isinstance(command, c.LaunchFromRegistry) else "hash"
    shouted = replace(command, **{field: HASH.upper()})  # type: ignore[arg-type]
    sent = []
    for each in (command, shouted):
        talk = pair.Talk() if dialect is INSTANCE else Talk(dialect)
        try:
            talk.ask(each)
        except LocalProtocolError as refused:
            sent.append([str(refused)])
        else:
            sent.append([str(message) for message in talk.sent()])
    assert sent[0] == sent[1] != []


def test_a_hash_in_upper_case_finds_the_name_that_was_given_here() -> None:
    talk = Talk()
    request_id = talk.ask(replace(program(manifest=MANIFEST), hash=HASH.upper()))
    talk.sent()
    talk.respond(request_id, "Program installed")
    assert only(talk.events()) == e.ProgramUploaded(2, HASH)
    talk.ask(c.LaunchInstance(hash=HASH.upper()))
    talk.ask(c.ProgramExists(HASH.upper()))
    launch, check = talk.sent()
    assert launch["inferlet"] == "echo@0.1.0"
    assert (check["name"], check["version"]) == ("echo", "0.1.0")
