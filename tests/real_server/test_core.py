"""The core against a real server: what is asked of the server itself, and who may do what."""

from __future__ import annotations

import json

import pytest

from pie_proto import commands as c
from pie_proto import events as e
from pie_proto.events import Event
from tests.programs.table import PROGRAMS
from tests.real_server.core_peer import CorePeer, connected, upload
from tests.real_server.running import RealServer

QUESTIONS = 10_000
NOBODY = "11111111-1111-4111-8111-111111111111"


def failure(peer: CorePeer, command: c.Command) -> str:
    return peer.ask(command, e.Failed).reason


def listed(peer: CorePeer) -> set[str]:
    return {row.id for row in peer.ask(c.ListInstances(), e.InstancesListed).instances}


def test_a_ping_is_answered(peer: CorePeer) -> None:
    peer.ask(c.Ping(), e.Pong)


def test_the_status_of_the_models_is_a_json_object(peer: CorePeer) -> None:
    answer = peer.ask(c.Query("model_status", ""), e.QueryAnswered)
    assert "tiny.total_batches" in json.loads(answer.result)


def test_an_unknown_subject_is_refused_with_an_answer(peer: CorePeer) -> None:
    assert failure(peer, c.Query("weather", "tomorrow")).startswith("unknown query subject")


def test_a_program_is_there_once_it_is_uploaded(peer: CorePeer) -> None:
    program = PROGRAMS["give_back"]
    unknown = c.ProgramExists("nothing@1.0.0")
    assert not peer.ask(unknown, e.ProgramExistsAnswered).exists
    upload(peer, program)
    assert peer.ask(c.ProgramExists(program.identifier), e.ProgramExistsAnswered).exists


def test_a_program_can_be_launched_by_its_name_alone(peer: CorePeer) -> None:
    upload(peer, PROGRAMS["give_back"])
    launched = peer.ask(c.LaunchFromRegistry(name="give_back"), e.Launched)
    assert peer.next_event(launched.instance_id).event is Event.Completed


def test_a_program_that_is_not_there_cannot_be_launched(peer: CorePeer) -> None:
    reason = failure(peer, c.LaunchFromRegistry(name="nothing@1.0.0"))
    assert reason.startswith("program nothing@1.0.0 is not installed")
    reason = failure(peer, c.LaunchFromRegistry(name="nothing"))
    assert reason == "no program named 'nothing' is installed"


def test_a_terminated_instance_is_told_as_aborted_once(peer: CorePeer) -> None:
    upload(peer, PROGRAMS["echo"])
    instance_id = peer.launch(PROGRAMS["echo"])
    peer.ask(c.TerminateInstance(instance_id), e.Terminated)
    assert [event.event for event in peer.read_to_end(instance_id)] == [Event.Aborted]
    assert failure(peer, c.TerminateInstance(instance_id)) == "Process not found"


def test_the_input_of_an_instance_is_listed_as_it_was_written(peer: CorePeer) -> None:
    upload(peer, PROGRAMS["listen"])
    given = ' {"b":  1.0, "a": "\\u00e9"} '
    instance_id = peer.launch(PROGRAMS["listen"], given)
    rows = peer.ask(c.ListInstances(), e.InstancesListed).instances
    (row,) = [row for row in rows if row.id == instance_id]
    assert (row.program, row.input) == (PROGRAMS["listen"].identifier, given)


def test_a_detached_instance_is_found_in_the_list_and_attached_by_another(
    real_server: RealServer, peer: CorePeer
) -> None:
    upload(peer, PROGRAMS["listen"])
    given = '{"mark":  "only here"}'
    command = c.LaunchFromRegistry(name="listen", detached=True, input=given)
    with connected(real_server) as launcher:
        # The server does not say which it is: that was found by listing, before and after.
        instance_id = launcher.ask(command, e.Launched).instance_id
        rows = launcher.ask(c.ListInstances(), e.InstancesListed).instances
        assert [row.id for row in rows if row.input == given] == [instance_id]
    # It outlives the connection that launched it.
    peer.ask(c.AttachInstance(instance_id), e.Attached)
    peer.ask(c.TerminateInstance(instance_id), e.Terminated)
    assert [event.event for event in peer.read_to_end(instance_id)] == [Event.Aborted]


def test_a_refused_attach_kills_the_instance_once_its_connection_ends(
    real_server: RealServer, peer: CorePeer
) -> None:
    # Not what one would wish: it is here so that a server that has learned better is noticed.
    upload(peer, PROGRAMS["listen"])
    instance_id = peer.launch(PROGRAMS["listen"])
    with connected(real_server) as late:
        assert failure(late, c.AttachInstance(instance_id)) == "Cannot attach: already attached"
        assert instance_id in listed(peer)
    assert [event.event for event in peer.read_to_end(instance_id)] == [Event.Aborted]


def test_the_end_of_a_connection_is_the_end_of_what_it_launched(
    real_server: RealServer, peer: CorePeer
) -> None:
    with connected(real_server) as brief:
        upload(brief, PROGRAMS["listen"])
        instance_id = brief.launch(PROGRAMS["listen"])
        assert instance_id in listed(peer)
    # The server notices it when it does: each of these is a question and its answer, not a pause.
    asked = 0
    while instance_id in listed(peer):
        asked += 1
        assert asked < QUESTIONS


@pytest.mark.parametrize("instance_id", [NOBODY, "no uuid"])
def test_an_instance_that_is_not_there_cannot_be_attached(peer: CorePeer, instance_id: str) -> None:
    reason = {NOBODY: "Process not found", "no uuid": "Invalid process_id"}[instance_id]
    assert failure(peer, c.AttachInstance(instance_id)) == reason
