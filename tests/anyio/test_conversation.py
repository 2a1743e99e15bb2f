"""The user guide's methods, against programs that really run."""

from __future__ import annotations

import os

import anyio
import pytest

from pie_anyio import (
    AttachFailed,
    Event,
    InstanceEnded,
    InstanceFailed,
    LaunchFailed,
    LocalProtocolError,
    PieClient,
    TerminateFailed,
    UploadFailed,
)
from pie_proto import hash_of
from tests.anyio.world import SOON, World, connected, launch, read_until, text_of
from tests.programs import component

pytestmark = pytest.mark.anyio

KIB = 1024


async def test_a_program_is_uploaded_launched_and_streamed_to_its_end(world: World) -> None:
    async with world() as (_, client):
        program_hash = await client.upload_program(component("hello"))
        assert program_hash == hash_of(component("hello"))
        instance = await client.launch_instance(program_hash)
        events = [pair async for pair in instance]
    assert text_of(events, Event.Stdout) == "hello from pie\n"
    assert text_of(events, Event.Stderr) == "a warning\n"
    assert events[-1] == (Event.Completed, "done")


async def test_arguments_reach_the_program(world: World) -> None:
    async with world() as (_, client):
        instance = await launch(client, "arguments", ["--prompt", "Grüße, 世界", ""])
        events = [pair async for pair in instance]
    assert text_of(events, Event.Stdout) == "--prompt\nGrüße, 世界\n\n"
    assert events[-1] == (Event.Completed, "--prompt")


async def test_messages_go_both_ways_in_order(world: World) -> None:
    async with world() as (_, client):
        instance = await launch(client, "echo")
        for number in range(200):
            await instance.send(str(number))
        await instance.send("stop")
        events = [pair async for pair in instance]
    messages = [data for event, data in events if event is Event.Message]
    assert messages[:200] == [f"echo: {number}" for number in range(200)]
    assert events[-1][0] is Event.Completed


@pytest.mark.parametrize("size", [1, 256 * KIB - 1, 256 * KIB, 256 * KIB + 1, 1_500_000])
async def test_a_blob_comes_back_as_it_went(size: int, world: World) -> None:
    blob = bytes(i % 251 for i in range(size))
    async with world() as (_, client):
        instance = await launch(client, "echo_blob")
        await instance.upload_blob(blob)
        _, back = await read_until(instance, Event.Blob)
    assert back == blob


async def test_result_is_what_the_program_returned(world: World) -> None:
    async with world() as (_, client):
        instance = await launch(client, "hello")
        assert await instance.result() == "done"
        assert await instance.result() == "done"


async def test_result_of_a_program_that_failed_is_an_exception_that_says_how(world: World) -> None:
    async with world() as (_, client):
        instance = await launch(client, "error")
        with pytest.raises(InstanceFailed) as caught:
            await instance.result()
    assert caught.value.event is Event.Exception
    assert str(caught.value.data) in str(caught.value)


async def test_a_trap_is_an_exception_behind_what_was_printed(world: World) -> None:
    async with world() as (_, client):
        instance = await launch(client, "trap")
        events = [pair async for pair in instance]
    assert events[0][0] is Event.Stdout
    assert events[-1][0] is Event.Exception
    assert "unreachable" in str(events[-1][1])


@pytest.mark.parametrize("program", ["loop", "sleep", "echo"])
async def test_terminate_ends_a_program_whatever_it_does(program: str, world: World) -> None:
    async with world() as (_, client):
        instance = await launch(client, program)
        await instance.terminate()
        assert [pair async for pair in instance][-1] == (Event.Aborted, "Signal termination")


async def test_terminate_refuses_what_is_no_instance_id(world: World) -> None:
    async with world() as (_, client):
        with pytest.raises(TerminateFailed, match="Malformed instance ID"):
            await client.terminate_instance("not an id")


async def test_a_detached_instance_is_claimed_by_another_client(world: World) -> None:
    async with world() as (server, client):
        launched = await launch(client, "arguments", ["kept", "for later"], detached=True)
        await client.aclose()
        async with connected(server) as other:
            assert [info.id for info in await other.list_instances()] == [launched.id]
            instance = await other.attach_instance(launched.id)
            events = [pair async for pair in instance]
            assert text_of(events, Event.Stdout) == "kept\nfor later\n"
            assert events[-1] == (Event.Completed, "kept")
            with pytest.raises(AttachFailed, match="not found"):
                await other.attach_instance(launched.id)


async def test_an_attached_instance_outlives_its_connection(world: World) -> None:
    async with world() as (server, client):
        launched = await launch(client, "echo")
        await client.aclose()
        async with connected(server) as other:
            instance = await other.attach_instance(launched.id)
            await instance.send("still there?")
            _, answer = await read_until(instance, Event.Message)
            assert answer == "echo: still there?"


async def test_an_instance_is_attached_to_one_client_at_a_time(world: World) -> None:
    async with world() as (server, client):
        instance = await launch(client, "echo")
        async with connected(server) as other:
            with pytest.raises(AttachFailed, match="already attached"):
                await other.attach_instance(instance.id)


async def test_a_detached_instance_cannot_be_read_or_spoken_to(world: World) -> None:
    async with world() as (_, client):
        instance = await launch(client, "echo", detached=True)
        assert instance.detached
        with pytest.raises(LocalProtocolError, match="detached"):
            await instance.recv()
        with pytest.raises(LocalProtocolError, match="detached"):
            instance.recv_nowait()
        with pytest.raises(LocalProtocolError, match="detached"):
            await instance.send("hello")
        with pytest.raises(LocalProtocolError, match="detached"):
            await instance.upload_blob(b"hello")
        with pytest.raises(LocalProtocolError, match="detached"):
            await anext(instance)


async def test_an_ended_instance_cannot_be_read_or_spoken_to(world: World) -> None:
    async with world() as (_, client):
        instance = await launch(client, "hello")
        assert await instance.result() == "done"
        for call in (instance.recv, lambda: instance.send("x"), lambda: instance.upload_blob(b"x")):
            with pytest.raises(InstanceEnded) as caught:
                await call()
            assert caught.value.event is Event.Completed
            assert caught.value.data == "done"
        with pytest.raises(InstanceEnded):
            instance.recv_nowait()


async def test_recv_nowait_gives_what_is_there_and_never_waits(world: World) -> None:
    async with world() as (_, client):
        instance = await launch(client, "echo")
        with pytest.raises(anyio.WouldBlock):
            instance.recv_nowait()
        await instance.send("one")
        assert await instance.recv() == (Event.Message, "echo: one")
        with pytest.raises(anyio.WouldBlock):
            instance.recv_nowait()


async def test_two_tasks_cannot_read_one_instance(world: World) -> None:
    async with world() as (_, client):
        instance = await launch(client, "echo")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(instance.recv)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(LocalProtocolError, match="another task"):
                await instance.recv()
            await instance.send("go on")


async def test_leaving_an_instance_drops_its_events_and_leaves_it_running(world: World) -> None:
    async with world() as (_, client):
        async with await launch(client, "echo") as instance:
            await instance.send("nobody reads the answer")
        with pytest.raises(LocalProtocolError, match="discarded"):
            await instance.recv()
        assert [info.id for info in await client.list_instances()] == [instance.id]


async def test_a_reader_is_woken_when_another_task_discards_the_instance(world: World) -> None:
    async with world() as (_, client):
        instance = await launch(client, "echo")
        async with anyio.create_task_group() as tasks:

            async def read() -> None:
                with pytest.raises(LocalProtocolError, match="discarded"):
                    await instance.recv()

            tasks.start_soon(read)
            await anyio.wait_all_tasks_blocked()
            instance.discard()


async def test_an_instance_that_is_being_terminated_is_not_spoken_to(world: World) -> None:
    async with world() as (_, client):
        instance = await launch(client, "echo")
        await instance.terminate()
        with pytest.raises(InstanceEnded):
            await instance.send("hello")
        with pytest.raises(InstanceEnded):
            await instance.upload_blob(b"hello")


async def test_a_program_is_launched_from_the_registry(
    world: World, tmp_path_factory: pytest.TempPathFactory
) -> None:
    registry = tmp_path_factory.mktemp("registry")
    (registry / "greeter.wasm").write_bytes(component("hello"))
    async with world(registry=registry) as (_, client):
        instance = await client.launch_instance_from_registry("greeter")
        assert await instance.result() == "done"
        with pytest.raises(LaunchFailed, match="launching 'nobody' from the registry"):
            await client.launch_instance_from_registry("nobody")


async def test_program_exists_tells_whether_it_was_uploaded(world: World) -> None:
    async with world() as (_, client):
        program = component("hello")
        assert not await client.program_exists(hash_of(program))
        await client.upload_program(program)
        assert await client.program_exists(hash_of(program))
        assert not await client.program_exists("no hash at all")


async def test_a_program_that_was_never_uploaded_cannot_be_launched(world: World) -> None:
    async with world() as (_, client):
        with pytest.raises(LaunchFailed) as caught:
            await client.launch_instance("invalid_hash")
        assert "invalid_hash" in str(caught.value)
        assert caught.value.reason
        await client.ping()


async def test_what_is_no_program_is_refused(world: World) -> None:
    async with world() as (_, client):
        with pytest.raises(UploadFailed):
            await client.upload_program(b"this is no component")


async def test_one_string_is_no_list_of_arguments(world: World) -> None:
    async with world() as (_, client):
        for args in ("--prompt", 3):
            with pytest.raises(LocalProtocolError, match="list of strings"):
                await client.launch_instance("0" * 64, args)  # type: ignore[arg-type]


async def test_a_query_is_answered(world: World) -> None:
    async with world() as (_, client):
        assert (await client.query("model_status", "")).startswith("{")


async def test_nothing_can_be_asked_before_authentication(world: World) -> None:
    async with world() as (server, _), PieClient(server.url) as client:
        calls = [
            client.ping,
            client.list_instances,
            lambda: client.query("model_status", ""),
            lambda: client.program_exists("0" * 64),
            lambda: client.upload_program(b"x"),
            lambda: client.launch_instance("0" * 64),
            lambda: client.launch_instance_from_registry("x"),
            lambda: client.attach_instance("x"),
            lambda: client.terminate_instance("x"),
        ]
        for call in calls:
            with pytest.raises(LocalProtocolError, match="authenticate first"):
                await call()
        await client.authenticate("ada")
        await client.ping()


async def test_progress_is_told_from_nothing_to_all(world: World) -> None:
    told: list[tuple[int, int]] = []
    blob = bytes(1_000_000)
    async with world() as (_, client):
        instance = await launch(client, "blob_back")
        await instance.upload_blob(blob, progress=lambda sent, size: told.append((sent, size)))
    assert told[0] == (0, len(blob))
    assert told[-1] == (len(blob), len(blob))
    assert told == sorted(told)


async def test_an_exception_in_the_progress_callback_is_the_callers(world: World) -> None:
    class Enough(Exception):
        pass

    def stop(sent: int, size: int) -> None:
        if sent > 0:
            raise Enough

    async with world() as (_, client):
        with pytest.raises(Enough):
            await client.upload_program(bytes(3_000_000), progress=stop)
        instance = await launch(client, "hello")
        assert await instance.result() == "done"


async def test_a_program_is_uploaded_from_a_file(
    world: World, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("programs") / "hello.wasm"
    path.write_bytes(component("hello"))
    async with world() as (_, client):
        for given in (path, str(path)):
            assert await client.upload_program(given) == hash_of(component("hello"))


async def test_what_is_no_file_is_not_uploaded(
    world: World, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("programs")
    os.mkfifo(folder / "pipe")
    async with world() as (_, client):
        for path in (folder, folder / "pipe", folder / "missing"):
            with pytest.raises(OSError, match=path.name):
                await client.upload_program(path)
        with pytest.raises(LocalProtocolError, match="contiguous"):
            await client.upload_program(memoryview(bytes(100))[::2])
        with pytest.raises(LocalProtocolError, match="bytes or a path"):
            await client.upload_program(17)  # type: ignore[arg-type]


async def test_a_file_that_shrinks_meanwhile_ends_the_upload_and_no_other(
    world: World, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("programs") / "shrinking.bin"
    path.write_bytes(bytes(4_000_000))

    def shrink(sent: int, size: int) -> None:
        if sent:
            path.write_bytes(b"short")

    async with world() as (_, client):
        instance = await launch(client, "blob_back")
        with pytest.raises(UploadFailed, match=r"shrinking\.bin"):
            await instance.upload_blob(path, progress=shrink)
        await instance.upload_blob(b"whole")
        _, back = await read_until(instance, Event.Blob)
        assert back == b"whole"


async def test_fifty_tasks_share_one_connection(world: World) -> None:
    programs = [component("hello"), component("arguments")]
    blobs = [bytes([number]) * 400_000 for number in range(3)]
    finished: list[int] = []

    async def work(client: PieClient, number: int) -> None:
        program_hash = await client.upload_program(programs[number % 2])
        await client.ping()
        async with await client.launch_instance(program_hash, [str(number)]) as instance:
            expected = "done" if number % 2 == 0 else str(number)
            assert await instance.result() == expected
        async with await launch(client, "blob_back") as echo:
            blob = blobs[number % 3]
            await echo.upload_blob(blob)
            _, back = await read_until(echo, Event.Blob)
            assert back == blob
            await client.ping()
            await echo.terminate()
        finished.append(number)

    async with world() as (_, client), anyio.create_task_group() as tasks:
        for number in range(50):
            tasks.start_soon(work, client, number)
    assert sorted(finished) == list(range(50))


async def test_a_client_connects_once(world: World) -> None:
    async with world() as (server, _):
        client = PieClient(server.url)
        async with client:
            pass
        with pytest.raises(LocalProtocolError, match="once"):
            async with client:
                pass


async def test_a_client_that_is_not_connected_says_so(world: World) -> None:
    client = PieClient("ws://127.0.0.1:1")
    with pytest.raises(LocalProtocolError, match="not connected"):
        await client.ping()
    with anyio.fail_after(SOON):
        await client.aclose()
