"""Instances that are detached, attached, claimed and terminated, over TCP."""

from __future__ import annotations

import uuid
from functools import partial

import anyio
import pytest

from pie_anyio.server import RunnerLimits, Server, serve
from pie_anyio.server.host import Host
from pie_anyio.server.instances import Instance, Instances
from pie_anyio.server.runner import Execution, Runner
from pie_proto import (
    Attached,
    AttachFailed,
    AttachInstance,
    Event,
    InstanceInfo,
    InstancesListed,
    ListInstances,
    Terminated,
    TerminateInstance,
    error_for,
)
from pie_proto.dialects.process import PROCESS_0_5
from tests.programs import component
from tests.server.server_peer import SECONDS, attach, client, streams

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("tidy")]


# ---------------------------------------------------------------------------- detached and attached


async def test_a_detached_instance_is_finished_until_it_is_claimed(server: Server) -> None:
    async with client(server) as peer:
        instance_id = await peer.launch("hello", detached=True)
        await peer.wait_for("instances running", 0)
        row = InstanceInfo(id=instance_id, arguments=(), status="Finished")
        listed = await peer.ask(ListInstances())
        assert isinstance(listed, InstancesListed)
        assert listed.instances == (row,)
    async with client(server) as other:
        assert isinstance(await other.ask(AttachInstance(instance_id)), Attached)
        *printed, end = await other.read_to_end(instance_id)
        assert streams(printed) == {Event.Stdout: "hello from pie\n", Event.Stderr: "a warning\n"}
        assert end == (Event.Completed, "done")
        assert await other.refusal(AttachInstance(instance_id)) == "Instance not found"
        listed = await other.ask(ListInstances())
        assert isinstance(listed, InstancesListed)
        assert listed.instances == ()


async def test_a_lost_connection_detaches_its_instances(server: Server) -> None:
    async with client(server) as peer:
        instance_id = await peer.launch("sleep", "argument")
        assert (await peer.read(instance_id))[0] is Event.Stdout
    async with client(server) as other:
        # The server finds out when it does: ask until it has.
        row = InstanceInfo(id=instance_id, arguments=("argument",), status="Detached")
        while True:
            listed = await other.ask(ListInstances())
            assert isinstance(listed, InstancesListed)
            if listed.instances == (row,):
                break
        assert isinstance(await other.ask(AttachInstance(instance_id)), Attached)
        assert isinstance(await other.ask(TerminateInstance(instance_id)), Terminated)
        assert await other.read_to_end(instance_id) == [(Event.Aborted, "Signal termination")]


async def test_an_instance_has_one_client_at_a_time(server: Server) -> None:
    async with client(server) as peer, client(server) as other:
        instance_id = await peer.launch("sleep")
        for each in (peer, other):
            with pytest.raises(AttachFailed, match="Instance already attached"):
                raise error_for(await other.ask(AttachInstance(instance_id)))
            del each
        listed = await other.ask(ListInstances())
        assert isinstance(listed, InstancesListed)
        assert [row.status for row in listed.instances] == ["Attached"]


async def test_ids_that_are_none_are_told_apart_from_unknown_ones(server: Server) -> None:
    unknown = str(uuid.uuid4())
    async with client(server) as peer:
        assert await peer.refusal(AttachInstance("nonsense")) == "Invalid instance_id"
        assert await peer.refusal(AttachInstance(unknown)) == "Instance not found"
        assert await peer.refusal(TerminateInstance("nonsense")) == "Malformed instance ID"
        assert isinstance(await peer.ask(TerminateInstance(unknown)), Terminated)


async def test_instances_are_their_users_own(server: Server) -> None:
    async with client(server, "joe") as joe, client(server, "ann") as ann:
        instance_id = await joe.launch("sleep", detached=True)
        assert (await ann.ask(ListInstances())) == InstancesListed(2, ())
        assert await ann.refusal(AttachInstance(instance_id)) == "Instance not found"
        assert isinstance(await ann.ask(TerminateInstance(instance_id)), Terminated)
        assert await joe.statistic("instances running") == 1


async def test_output_is_neither_lost_nor_doubled_when_nobody_is_behind(server: Server) -> None:
    """Attached, dropped, attached again: the pieces that come are a run without a gap."""
    async with client(server) as peer:
        instance_id = await peer.launch("flood", "100000")
        await peer.read(instance_id)
    async with client(server) as other:
        await attach(other, instance_id)
        printed = ""
        while len(printed) < 5_000_000:
            printed += str((await other.read(instance_id))[1])
        numbers = [int(line[:16]) for line in printed.splitlines() if len(line) == 65_535]
        # What was kept is the last 1 MiB at that time; from there on, everything.
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        assert len(numbers) > 50


async def test_only_so_many_finished_instances_wait_to_be_claimed() -> None:
    limits = RunnerLimits(finished_instances=2)
    async with serve(runner_limits=limits) as server, client(server) as peer:
        ids = []
        for _ in range(4):
            ids.append(await peer.launch("error", detached=True))
            await peer.wait_for("instances running", 0)
        listed = await peer.ask(ListInstances())
        assert isinstance(listed, InstancesListed)
        assert [row.id for row in listed.instances] == ids[2:]


# ------------------------------------------------------------------------------ without a server


class Waiting:
    """A listener that can be waited for."""

    def __init__(self) -> None:
        self.told = anyio.Event()

    def readable(self, _instance: Instance) -> None:
        self.told.set()


async def test_an_instance_whose_execution_fails_has_ended_and_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Not even Ctrl-C, which Python may raise in the middle of a host function, loses its end."""

    def interrupted(_host: Host) -> None:
        raise KeyboardInterrupt

    functions = {"wasi:cli/stdout#get-stdout": interrupted}
    runner = Runner(cache=False, functions=functions)
    all_instances = Instances(partial(Execution, runner), RunnerLimits())
    listener = Waiting()
    instance = all_instances.launch("joe", runner.compile(component("hello")), (), listener)
    assert repr(instance) == f"<Instance {instance.id} of 'joe', Attached>"
    with anyio.fail_after(SECONDS):
        await listener.told.wait()
        assert instance.output.take(1) == [(Event.ServerError, "KeyboardInterrupt: ")]
        await all_instances.aclose()
    (record,) = caplog.records
    assert record.getMessage() == f"the execution of instance {instance.id} failed"
    with pytest.raises(RuntimeError, match="the server is closing"):
        all_instances.launch("joe", runner.compile(component("hello")), (), None)
    caplog.clear()


async def test_what_dies_with_its_connection_is_found_no_more_while_it_dies() -> None:
    runner = Runner(cache=False)
    abilities = PROCESS_0_5.capabilities
    all_instances = Instances(partial(Execution, runner), RunnerLimits(), abilities)
    program = runner.compile(component("sleep"))
    instance = all_instances.launch("joe", program, (), Waiting())
    all_instances.detach(instance)
    # Its end is for the event loop to hear of, which has not had a turn since.
    assert all_instances.running == 1
    assert all_instances.find("joe", instance.id) is None
    assert all_instances.listed("joe") == ()
    with anyio.fail_after(SECONDS):
        await all_instances.aclose()


# -------------------------------------------------------------------------------------- termination


@pytest.mark.parametrize("name", ["loop", "sleep", "echo"])
async def test_whatever_a_program_does_it_can_be_terminated(server: Server, name: str) -> None:
    async with client(server) as peer:
        instance_id = await peer.launch(name)
        assert isinstance(await peer.ask(TerminateInstance(instance_id)), Terminated)
        end = (await peer.read_to_end(instance_id))[-1]
        assert end == (Event.Aborted, "Signal termination")
        assert await peer.ask(ListInstances()) == InstancesListed(5, ())


async def test_a_detached_instance_that_is_terminated_has_its_end_to_tell(server: Server) -> None:
    async with client(server) as peer:
        instance_id = await peer.launch("loop", detached=True)
        await peer.ask(TerminateInstance(instance_id))
        await peer.wait_for("instances running", 0)
        assert isinstance(await peer.ask(AttachInstance(instance_id)), Attached)
        end = (await peer.read_to_end(instance_id))[-1]
        assert end == (Event.Aborted, "Signal termination")
