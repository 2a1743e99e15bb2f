"""The bounds of the embedded server, each met by a client or a program that hits it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pie_anyio.server import SERVER_LIMITS, RunnerLimits, Server, serve
from pie_proto import (
    Attached,
    AttachInstance,
    BlobUploaded,
    Event,
    LaunchFromRegistry,
    LaunchInstance,
    Ping,
    Pong,
    ProgramUploaded,
    TerminateInstance,
    UploadBlob,
    hash_of,
)
from tests.programs import component
from tests.server.server_peer import client, streams

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("tidy")]

UPLOAD_BYTES = 300_000
"""More than one chunk, and less than two."""


@pytest.fixture
def small_uploads() -> Server:
    """A server that takes no large upload."""
    return serve(limits=replace(SERVER_LIMITS, upload_bytes=UPLOAD_BYTES))


async def test_so_many_instances_run_at_a_time_and_another_is_refused_in_words(
    tmp_path: Path,
) -> None:
    (tmp_path / "sleep.wasm").write_bytes(component("sleep"))
    launch = LaunchInstance(hash=hash_of(component("sleep")))
    words = "2 instances run here, and no more may at one time (limit running_instances)"
    limits = RunnerLimits(running_instances=2)
    async with serve(registry=tmp_path, runner_limits=limits) as server:
        async with client(server, "joe") as joe, client(server, "ann") as ann:
            first = await joe.launch("sleep")
            await ann.launch("sleep", detached=True)
            for peer in (joe, ann):
                assert await peer.refusal(launch) == words
                assert await peer.refusal(replace(launch, detached=True)) == words
                assert await peer.refusal(LaunchFromRegistry(name="sleep")) == words
            await joe.ask(TerminateInstance(first))
            await joe.read_to_end(first)
            await joe.wait_for("instances running", 1)
            # One that has ended and waits to be claimed does not run.
            await joe.launch("hello", detached=True)
            await joe.wait_for("instances running", 1)
            await joe.launch("sleep")


async def test_a_program_that_is_too_large_is_refused_in_words(small_uploads: Server) -> None:
    program = component("hello")
    async with small_uploads as server, client(server) as peer:
        reason = await peer.refusal_of_upload(program.ljust(UPLOAD_BYTES + 1, b"\0"))
        assert reason == f"Upload size {UPLOAD_BYTES + 1} exceeds limit {UPLOAD_BYTES}"
        # One that is just small enough is looked at, and the slot is free.
        reason = await peer.refusal_of_upload(program.ljust(UPLOAD_BYTES, b"\0"))
        assert "not a WebAssembly component" in reason
        assert isinstance(await peer.upload(program), ProgramUploaded)


async def test_a_blob_that_is_too_large_is_refused_in_words(small_uploads: Server) -> None:
    def upload(size: int) -> UploadBlob:
        data = bytes(size)
        return UploadBlob(instance_id=instance_id, size=size, hash=hash_of(data), data=data)

    async with small_uploads as server, client(server) as peer:
        instance_id = await peer.launch("echo_blob")
        reason = await peer.refusal(upload(UPLOAD_BYTES + 1))
        assert reason == f"Upload size {UPLOAD_BYTES + 1} exceeds limit {UPLOAD_BYTES}"
        for size in (UPLOAD_BYTES, 0):
            assert isinstance(await peer.ask(upload(size)), BlobUploaded)
        *events, end = await peer.read_to_end(instance_id)
        assert events == [(Event.Blob, bytes(UPLOAD_BYTES))]
        assert end[0] is Event.Completed


@pytest.mark.parametrize(
    ("limits", "program", "name"),
    [
        (RunnerLimits(memory_bytes=1), "hello", "memory_bytes"),
        (RunnerLimits(memories=0), "hello", "memories"),
        (RunnerLimits(instances=1), "hello", "instances"),
        (RunnerLimits(store_bytes=1), "store", "store_bytes"),
    ],
)
async def test_an_instance_over_its_limits_ends_as_server_error_and_harms_nobody(
    limits: RunnerLimits, program: str, name: str
) -> None:
    async with serve(runner_limits=limits) as server, client(server) as peer:
        event, text = (await peer.read_to_end(await peer.launch(program, "key")))[-1]
        assert event is Event.ServerError
        assert f"(limit {name})" in str(text)
        assert isinstance(await peer.ask(Ping()), Pong)


async def test_what_waits_for_an_instance_is_bounded() -> None:
    limits = RunnerLimits(held_bytes=10_000)
    async with serve(runner_limits=limits) as server, client(server) as peer:
        instance_id = await peer.launch("sleep")
        for _ in range(3):
            await peer.say(instance_id, "x" * 5000)
        event, text = (await peer.read_to_end(instance_id))[-1]
        assert event is Event.ServerError
        assert "(limit held_bytes)" in str(text)


@pytest.mark.parametrize("kept_bytes", [1000, RunnerLimits().kept_bytes])
async def test_of_each_stream_of_a_detached_instance_the_last_bytes_are_kept(
    kept_bytes: int,
) -> None:
    limits = RunnerLimits(kept_bytes=kept_bytes)
    async with serve(runner_limits=limits) as server, client(server) as peer:
        instance_id = await peer.launch("flood", "40", detached=True)
        await peer.wait_for("instances running", 0)
        assert isinstance(await peer.ask(AttachInstance(instance_id)), Attached)
        *printed, end = await peer.read_to_end(instance_id)
        kept = streams(printed)[Event.Stdout]
        assert len(kept) == kept_bytes
        assert kept.endswith("." * 900 + "\n")
        assert f"{39:016}" in kept or kept_bytes < 65_536
        assert end == (Event.Completed, "flooded")
    assert RunnerLimits().kept_bytes == 1024 * 1024
