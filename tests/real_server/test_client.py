"""What clients get from a server that people run, beyond what any family does."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import anyio
import pytest

from pie_anyio import AuthenticationError, ConnectFailed, Event, InstanceFailed
from pie_proto import hash_of
from tests.families.world import IDENTITY, SOON, World, told
from tests.programs.table import PROGRAMS

pytestmark = pytest.mark.anyio

LONG = 300
"""For what is much, in seconds."""

MOST_INSTANCES = 200
INSTANCE_BYTES = 20 << 20
"""What one takes of memory, seen: 17 MiB."""

BY_HASH = """
import sys, anyio
from pie_anyio import PieClient

async def main(uri, identity, program_hash):
    async with PieClient(uri, identity=identity) as client:
        await client.authenticate("another")
        print(await (await client.launch_instance(program_hash)).result(), end="")

anyio.run(main, *sys.argv[1:])
"""


def available_memory() -> int:
    """What may be taken of this machine's memory, in bytes."""
    limit = Path("/sys/fs/cgroup/memory.max")
    words = limit.read_text().strip() if limit.exists() else "max"
    lines = Path("/proc/meminfo").read_text().splitlines()
    machine = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))
    # Where a limit is set, the server has some of it already, and others too.
    return machine if words == "max" else min(machine, int(words) // 2)


@pytest.mark.parametrize(
    "value",
    [{"a": [1, 2.5, None], "b": {"c": "d"}}, "a text", "", 17, True, ["x"], None],
    ids=["dict", "text", "empty", "number", "true", "list", "nothing"],
)
async def test_what_a_program_returns_is_its_result(world: World, value: Any) -> None:
    with anyio.fail_after(SOON):
        async with world.client() as client:
            instance = await world.launch(client, "give_back", input={"value": value})
            # Nothing comes as an empty text: the server makes no difference.
            assert await instance.result() == ("" if value is None else value)


async def test_an_exception_comes_with_its_traceback(world: World) -> None:
    with anyio.fail_after(SOON):
        async with world.client() as client:
            instance = await world.launch(client, "value_error", "--text", "of this value")
            with pytest.raises(InstanceFailed, match="ValueError: of this value") as failed:
                await instance.result()
            assert failed.value.event is Event.Exception
            assert "Traceback (most recent call last)" in str(failed.value.data)
            assert "in refuse" in str(failed.value.data)


async def test_a_hundred_thousand_lines_are_complete_and_in_order(world: World) -> None:
    with anyio.fail_after(LONG):
        async with world.client() as client:
            said = await told(await world.launch(client, "lines"))
    assert said[Event.Stdout] == "".join(f"line {number}\n" for number in range(100_000))


async def test_a_program_is_launched_by_its_hash_from_another_process(world: World) -> None:
    program = PROGRAMS["return_value"]
    manifest = program.manifest().split("\n\n")[1]
    with anyio.fail_after(SOON):
        async with world.client() as client:
            program_hash = await client.upload_program(program.source(), manifest=manifest)
        assert program_hash == hash_of(program.source())
        script = [sys.executable, "-c", BY_HASH, world.uri, IDENTITY, program_hash]
        said = await anyio.run_process(script)
    assert said.stdout == b"forty-two"


async def test_very_many_instances_run_at_once(world: World) -> None:
    most = min(MOST_INSTANCES, available_memory() // INSTANCE_BYTES)
    assert most > 1
    with anyio.fail_after(LONG):
        async with world.client() as client, anyio.create_task_group() as tasks:
            await world.upload(client, "echo")
            running: set[str] = set()
            together = anyio.Event()

            async def talk(number: int) -> None:
                instance = await world.launch(client, "echo")
                await instance.send(f"number {number}")
                assert await instance.recv() == (Event.Message, f"echo: number {number}")
                running.add(instance.id)
                # None ends before each has answered.
                if len(running) == most:
                    together.set()
                await together.wait()
                await instance.send("stop")
                assert await instance.result() == "stopped"

            for number in range(most):
                tasks.start_soon(talk, number)


async def test_what_the_server_cannot_read_fails_in_its_words_and_at_once(world: World) -> None:
    # The words of an older family: this server knows some of them.
    there = World(**{**vars(world), "uri": f"{world.uri}/v1/ws"})
    with anyio.fail_after(SOON):
        async with there.client(dialect="process-0.3") as client:
            await client.ping()
            began = time.monotonic()
            with pytest.raises(AuthenticationError, match="bad client frame: unknown variant"):
                await client.internal_authenticate("a token")
            # A bound for "never": a round trip takes a millisecond.
            assert time.monotonic() - began < SOON / 2
            await client.ping()


async def test_who_does_not_say_who_it_is_is_told_how(world: World) -> None:
    with anyio.fail_after(SOON):
        with pytest.raises(ConnectFailed, match="identity=") as refused:
            async with world.stranger(identity=None):
                pass
    assert refused.value.status == 401
    assert "x-pie-identity" in refused.value.body
