"""The user guide's methods, against programs that really run in another process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from pie_proto import hash_of
from pie_trio_adapter import (
    AttachFailed,
    Event,
    InstanceEnded,
    InstanceFailed,
    LaunchFailed,
    LocalProtocolError,
    TerminateFailed,
    UploadFailed,
    open_client,
)
from tests.programs import component
from tests.trio_adapter.world import connected, in_trio, launch, read_until


@in_trio
async def test_a_program_is_uploaded_launched_and_streamed_to_its_end(url: str) -> None:
    async with connected(url) as client:
        program_hash = await client.upload_program(component("hello"))
        assert program_hash == hash_of(component("hello"))
        assert await client.program_exists(program_hash)
        instance = await client.launch_instance(program_hash)
        events = [pair async for pair in instance]
        assert instance.id in repr(instance)
    assert (Event.Stdout, "hello from pie\n") in events
    assert (Event.Stderr, "a warning\n") in events
    assert events[-1] == (Event.Completed, "done")


@in_trio
async def test_messages_go_both_ways_in_order(url: str) -> None:
    async with connected(url) as client:
        instance = await launch(client, "echo")
        for number in range(200):
            await instance.send(str(number))
        await instance.send("stop")
        events = [pair async for pair in instance]
    messages = [data for event, data in events if event is Event.Message]
    assert messages[:200] == [f"echo: {number}" for number in range(200)]
    assert events[-1][0] is Event.Completed


@pytest.mark.parametrize("size", [1, 256 * 1024, 1_500_000])
@in_trio
async def test_a_blob_comes_back_as_it_went(size: int, url: str) -> None:
    blob = bytes(i % 251 for i in range(size))
    told: list[tuple[int, int]] = []
    async with connected(url) as client:
        instance = await launch(client, "echo_blob")
        await instance.upload_blob(blob, progress=lambda sent, size: told.append((sent, size)))
        _, back = await read_until(instance, Event.Blob)
    assert back == blob
    assert told[0] == (0, size)
    assert told[-1] == (size, size)
    assert told == sorted(told)


@in_trio
async def test_a_program_of_the_registry_returns_its_result(url: str) -> None:
    async with connected(url) as client:
        instance = await client.launch_instance_from_registry("greeter")
        assert await instance.result() == "done"
        assert await instance.result() == "done"
        with pytest.raises(LaunchFailed, match="launching 'nobody' from the registry"):
            await client.launch_instance_from_registry("nobody")


@pytest.mark.parametrize("program", ["error", "trap"])
@in_trio
async def test_a_program_that_failed_is_an_exception_that_says_how(program: str, url: str) -> None:
    async with connected(url) as client:
        instance = await launch(client, program)
        with pytest.raises(InstanceFailed) as caught:
            await instance.result()
    assert caught.value.event is Event.Exception
    assert str(caught.value.data) in str(caught.value)


@in_trio
async def test_terminate_ends_a_program_and_tells_how(url: str) -> None:
    async with connected(url) as client:
        instance = await launch(client, "loop")
        await instance.terminate()
        with pytest.raises(InstanceEnded, match="being terminated"):
            await instance.send("hello")
        assert [pair async for pair in instance][-1] == (Event.Aborted, "Signal termination")
        with pytest.raises(TerminateFailed, match="Malformed"):
            await client.terminate_instance("not an id")


@in_trio
async def test_a_detached_instance_is_claimed_by_another_client(url: str) -> None:
    async with connected(url) as client:
        launched = await launch(client, "arguments", ["kept", "for later"], detached=True)
        assert launched.detached
        for call in (launched.receive, lambda: launched.send("x"), launched.recv):
            with pytest.raises(LocalProtocolError, match="detached"):
                await call()
    async with connected(url) as other:
        assert launched.id in [info.id for info in await other.list_instances()]
        instance = await other.attach_instance(launched.id)
        events = [pair async for pair in instance]
        assert events[-1] == (Event.Completed, "kept")
        with pytest.raises(AttachFailed, match="not found"):
            await other.attach_instance(launched.id)


@in_trio
async def test_queries_are_answered_and_refusals_are_told(url: str) -> None:
    async with connected(url) as client:
        assert (await client.query("model_status", "")).startswith("{")
        with pytest.raises(LaunchFailed, match="0000"):
            await client.launch_instance("0" * 64)
        with pytest.raises(LaunchFailed):
            await client.launch_server_instance("0" * 64, 8080)
        with pytest.raises(UploadFailed):
            await client.upload_program(b"this is no component")
        with pytest.raises(LocalProtocolError, match="list of strings"):
            await client.launch_instance("0" * 64, "--prompt")


@in_trio
async def test_nothing_can_be_asked_before_authentication(url: str) -> None:
    async with open_client(url) as client:
        with pytest.raises(LocalProtocolError, match="authenticate first"):
            await client.ping()
        await client.authenticate("ada")
        await client.ping()
        assert client.is_connected
        assert client.statistics().requests_pending == 0


@in_trio
async def test_a_program_is_uploaded_from_a_file(url: str, tmp_path: Path) -> None:
    path = tmp_path / "hello.wasm"
    path.write_bytes(component("hello"))
    os.mkfifo(tmp_path / "pipe")
    async with connected(url) as client:
        for given in (path, str(path)):
            assert await client.upload_program(given) == hash_of(component("hello"))
        for odd in (tmp_path, tmp_path / "pipe", tmp_path / "missing"):
            with pytest.raises(OSError, match=odd.name):
                await client.upload_program(odd)
        with pytest.raises(LocalProtocolError, match="contiguous"):
            await client.upload_program(memoryview(bytes(100))[::2])
        with pytest.raises(LocalProtocolError, match="bytes or a path"):
            await client.upload_program(17)  # type: ignore[arg-type]


@pytest.mark.parametrize("becomes", [b"short", bytes(4_000_000)])
@in_trio
async def test_a_file_that_changes_meanwhile_ends_the_upload_and_no_other(
    becomes: bytes, url: str, tmp_path: Path
) -> None:
    path = tmp_path / "changing.bin"
    path.write_bytes(bytes(4_000_000))
    os.utime(path, (0, 0))

    def change(sent: int, size: int) -> None:
        if sent:
            path.write_bytes(becomes)

    async with connected(url) as client:
        instance = await launch(client, "blob_back")
        with pytest.raises(UploadFailed, match=r"changing\.bin"):
            await instance.upload_blob(path, progress=change)
        await instance.upload_blob(b"whole")
        assert (await read_until(instance, Event.Blob))[1] == b"whole"


@in_trio
async def test_ten_tasks_share_one_connection(url: str) -> None:
    blob = bytes(400_000)
    finished: list[int] = []
    async with connected(url) as client:

        async def work(number: int) -> None:
            async with await launch(client, "arguments", [str(number)]) as instance:
                assert await instance.result() == str(number)
            async with await launch(client, "blob_back") as echo:
                await echo.upload_blob(blob)
                assert (await read_until(echo, Event.Blob))[1] == blob
                await client.ping()
                await echo.terminate()
            finished.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(work, number)
    assert sorted(finished) == list(range(10))
