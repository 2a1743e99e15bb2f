"""The embedded server over TCP: what programs do, how fast they may, and how it all ends."""

from __future__ import annotations

import asyncio
import threading
import uuid
from dataclasses import replace

import anyio
import pytest
from anyio.abc import TaskStatus

from pie_anyio.server import SERVER_LIMITS, Server, serve
from pie_anyio.server.runner import Program, Runner
from pie_proto import (
    BlobUploaded,
    Connected,
    Event,
    Identify,
    InstancesListed,
    Launched,
    LaunchInstance,
    LaunchServerInstance,
    ListInstances,
    Outcome,
    Ping,
    Pong,
    ProgramExists,
    ProgramExistsAnswered,
    ProgramUploaded,
    Query,
    QueryAnswered,
    TerminateInstance,
    UploadBlob,
    UploadProgram,
    hash_of,
)
from tests.programs import component
from tests.server.server_peer import SECONDS, Peer, attach, client, streams

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("tidy")]


# ----------------------------------------------------------------------------------------- programs


async def test_a_program_prints_and_returns(server: Server) -> None:
    async with client(server) as peer:
        instance_id = await peer.launch("hello")
        assert str(uuid.UUID(instance_id)) == instance_id
        *printed, end = await peer.read_to_end(instance_id)
        assert streams(printed) == {Event.Stdout: "hello from pie\n", Event.Stderr: "a warning\n"}
        assert end == (Event.Completed, "done")


async def test_an_uploaded_program_exists(server: Server) -> None:
    data = component("hello")
    async with client(server) as peer:
        assert await peer.ask(ProgramExists(hash_of(data))) == ProgramExistsAnswered(2, False)
        assert await peer.upload(data) == ProgramUploaded(3, hash_of(data))
        assert await peer.ask(ProgramExists(hash_of(data))) == ProgramExistsAnswered(4, True)


async def test_a_launch_right_behind_the_upload_finds_the_program(server: Server) -> None:
    data = component("hello")
    async with client(server) as peer:
        await peer.tell(UploadProgram(size=len(data), hash=hash_of(data), data=data))
        assert isinstance(await peer.ask(LaunchInstance(hash=hash_of(data))), Launched)


async def test_the_compiler_says_what_is_wrong_with_a_program(server: Server) -> None:
    async with client(server) as peer:
        data = b"this is no program"
        reason = await peer.refusal(UploadProgram(size=len(data), hash=hash_of(data), data=data))
        assert "not a WebAssembly component" in reason
        assert "Program not found" in await peer.refusal(LaunchInstance(hash=hash_of(data)))


async def test_arguments_reach_the_program(server: Server) -> None:
    async with client(server) as peer:
        *printed, end = await peer.read_to_end(await peer.launch("arguments", "one", "zwei ü"))
        assert streams(printed) == {Event.Stdout: "one\nzwei ü\n"}
        assert end == (Event.Completed, "one")
        data = component("arguments")
        nul = LaunchInstance(hash=hash_of(data), arguments=("a\0b",))
        assert "NUL" in await peer.refusal(nul)


async def test_errors_and_traps_end_an_instance_with_their_text(server: Server) -> None:
    async with client(server) as peer:
        events = await peer.read_to_end(await peer.launch("error"))
        assert events == [(Event.Exception, "it went wrong")]
        *_, (event, words) = await peer.read_to_end(await peer.launch("trap"))
        assert event is Event.Exception
        assert "unreachable" in str(words)


async def test_messages_go_both_ways_in_order(server: Server) -> None:
    async with client(server) as peer:
        instance_id = await peer.launch("echo")
        for number in range(50):
            await peer.say(instance_id, str(number))
        await peer.say(instance_id, "stop")
        *events, end = await peer.read_to_end(instance_id)
        echoes = [data for event, data in events if event is Event.Message]
        assert echoes == [f"echo: {number}" for number in range(50)]
        assert end[0] is Event.Completed


async def test_blobs_go_both_ways(server: Server) -> None:
    blob = bytes(range(256)) * 2048 + b"odd"
    async with client(server) as peer:
        instance_id = await peer.launch("echo_blob")
        for content in (blob, b"small", b""):
            upload = UploadBlob(
                instance_id=instance_id, size=len(content), hash=hash_of(content), data=content
            )
            assert isinstance(await peer.ask(upload), BlobUploaded)
        *events, end = await peer.read_to_end(instance_id)
        assert [data for event, data in events if event is Event.Blob] == [blob, b"small"]
        assert end[0] is Event.Completed


async def test_queries(server: Server) -> None:
    async with client(server) as peer:
        assert await peer.ask(Query("model_status", "")) == QueryAnswered(2, "{}")
        assert await peer.statistic("instances running") == 0
        # An unknown subject is never answered, and nothing waits for that.
        await peer.tell(Query("weather", "Bern"))
        assert await peer.ask(Ping()) == Pong(5)


async def test_a_program_that_is_a_server_itself_is_declined_in_words(server: Server) -> None:
    data = component("hello")
    async with client(server) as peer:
        await peer.upload(data)
        launch = LaunchServerInstance(port=8000, hash=hash_of(data))
        reason = await peer.refusal(launch)
        assert reason == "This server runs no programs that are servers themselves"
        assert await peer.statistic("instances running") == 0


async def test_programs_of_all_users_share_topics_and_the_store(server: Server) -> None:
    async with client(server, "joe") as joe, client(server, "ann") as ann:
        listener = await joe.launch("topics")
        assert await joe.read(listener) == (Event.Message, "listening")
        assert (await ann.read_to_end(await ann.launch("topics", "it rains")))[-1] == (
            Event.Completed,
            "",
        )
        assert await joe.read_to_end(listener) == [
            (Event.Message, "it rains"),
            (Event.Completed, ""),
        ]
        for peer in (joe, ann):
            events = await peer.read_to_end(await peer.launch("store", "key"))
            assert events == [
                (Event.Message, "blue"),
                (Event.Message, "key"),
                (Event.Completed, ""),
            ]


async def test_what_is_said_to_a_program_that_has_ended_unheard_is_taken_and_dropped(
    server: Server,
) -> None:
    # In memory nothing waits between the two: what this one does not read, is not sent.
    async with client(server) as other, await server.connect() as stream:
        peer = Peer(stream)
        await peer.event(lambda event: isinstance(event, Connected))
        await peer.ask(Identify("joe"))
        # Four writes fit into the queue, even if none of them has been taken by the connection.
        instance_id = await peer.launch("flood", "4")
        await other.wait_for("instances running", 0)
        await peer.say(instance_id, "anybody?")
        upload = UploadBlob(instance_id=instance_id, size=1, hash=hash_of(b"x"), data=b"x")
        assert isinstance(await peer.ask(upload), BlobUploaded)
        *printed, end = await peer.read_to_end(instance_id)
        assert len(streams(printed)[Event.Stdout]) == 4 * 65_536
        assert end == (Event.Completed, "flooded")


class SlowCompiler:
    """Makes `Runner.compile` wait until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go = threading.Event()
        compile_at_once = Runner.compile

        def compile_later(runner: Runner, data: bytes | str) -> Program:
            assert self.go.wait(SECONDS)
            return compile_at_once(runner, data)

        monkeypatch.setattr(Runner, "compile", compile_later)


async def test_nobody_waits_for_the_compiler_who_needs_not(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = component("echo")
    async with client(server) as peer, client(server) as other:
        running = await peer.launch("hello")
        slow = SlowCompiler(monkeypatch)
        upload = await peer.tell(UploadProgram(size=len(data), hash=hash_of(data), data=data))
        launch = await peer.tell(LaunchInstance(hash=hash_of(data)))
        assert isinstance(await peer.ask(Ping()), Pong)
        assert (await peer.read_to_end(running))[-1][0] is Event.Completed
        assert (await other.read_to_end(await other.launch("hello")))[-1][0] is Event.Completed
        slow.go.set()
        answers = [await peer.event(lambda event: isinstance(event, Outcome)) for _ in range(2)]
        assert answers[0] == ProgramUploaded(upload, hash_of(data))
        assert isinstance(answers[1], Launched)
        assert answers[1].request_id == launch


async def test_a_program_is_there_even_if_who_uploaded_it_has_gone(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = SlowCompiler(monkeypatch)
    data = component("hello")
    async with client(server) as other:
        async with client(server) as peer:
            await peer.tell(UploadProgram(size=len(data), hash=hash_of(data), data=data))
            assert isinstance(await peer.ask(Ping()), Pong)
        asked = await other.tell(ProgramExists(hash_of(data)))
        assert isinstance(await other.ask(Ping()), Pong)
        slow.go.set()
        answer = await other.event(lambda event: isinstance(event, ProgramExistsAnswered))
        assert answer == ProgramExistsAnswered(asked, True)


async def test_the_server_waits_for_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = SlowCompiler(monkeypatch)
    data = component("hello")
    with anyio.fail_after(SECONDS):
        async with serve() as server, client(server) as peer:
            await peer.tell(UploadProgram(size=len(data), hash=hash_of(data), data=data))
            assert isinstance(await peer.ask(Ping()), Pong)
            slow.go.set()


# ----------------------------------------------------------------------------------------- the flow


async def test_a_client_that_does_not_read_blocks_its_own_program_and_nobody_else(
    server: Server,
) -> None:
    async with client(server) as deaf, client(server) as other:
        instance_id = await deaf.launch("flood", "1000000")
        await other.wait_for("instances blocked", 1)
        assert (await other.read_to_end(await other.launch("hello")))[-1][0] is Event.Completed
        assert isinstance(await deaf.ask(Ping()), Pong)
        await other.wait_for("instances blocked", 1)
        # Heard although nothing of what goes the other way is read.
        await deaf.tell(TerminateInstance(instance_id))
        await other.wait_for("instances running", 0)
        assert (await deaf.read_to_end(instance_id))[-1] == (Event.Aborted, "Signal termination")


async def test_a_blocked_program_goes_on_when_its_client_is_gone(server: Server) -> None:
    async with client(server) as other:
        async with client(server) as deaf:
            instance_id = await deaf.launch("flood", "150")
            await other.wait_for("instances blocked", 1)
        await other.wait_for("instances running", 0)
        await attach(other, instance_id)
        *printed, end = await other.read_to_end(instance_id)
        assert len(streams(printed)[Event.Stdout]) == 1024 * 1024
        assert end == (Event.Completed, "flooded")


@pytest.mark.parametrize("unsent_bytes", [100, 1024 * 1024])
async def test_requests_that_pile_up_are_all_answered_in_order(unsent_bytes: int) -> None:
    limits = replace(SERVER_LIMITS, unsent_bytes=unsent_bytes)
    async with serve(limits=limits) as server, client(server) as peer:
        for _ in range(1000):
            peer.connection.send(ListInstances(), anyio.current_time())
            peer.connection.send(Ping(), anyio.current_time())
        answered = []
        while len(answered) < 2000:
            answered.append(await peer.event(lambda event: True))
        assert [event.request_id for event in answered if isinstance(event, Pong)] == [
            *range(3, 2003, 2)
        ]
        assert [event.request_id for event in answered if isinstance(event, InstancesListed)] == [
            *range(2, 2002, 2)
        ]


# ------------------------------------------------------------------------------------------ the end


async def test_the_end_of_the_server_is_the_end_of_all_programs_and_clients_are_told() -> None:
    async def stay(*, task_status: TaskStatus[None]) -> None:
        async with client(server) as peer:
            instance_id = await peer.launch("loop")
            task_status.started()
            end = (await peer.read_to_end(instance_id))[-1]
            closed = await peer.closed()
        assert end == (Event.Aborted, "Server closed")
        assert (closed.code, closed.reason) == (1001, "the server is closing")

    with anyio.fail_after(SECONDS):
        async with anyio.create_task_group() as tasks, serve() as server:
            async with client(server) as gone:
                await gone.launch("loop")
                await gone.launch("loop", detached=True)
            await tasks.start(stay)
            # One that never says a word.
            silent = await anyio.connect_tcp("127.0.0.1", server.port)
        with pytest.raises(OSError, match=r"."):
            await anyio.connect_tcp("127.0.0.1", server.port)
    await silent.aclose()


async def test_an_exception_of_the_user_arrives_as_itself() -> None:
    error = LookupError("mine")

    async def fail() -> None:
        async with serve() as server, client(server) as peer:
            await peer.launch("loop")
            raise error

    with pytest.raises(LookupError) as caught:
        await fail()
    assert caught.value is error


async def test_cancelling_leaves_nothing_behind() -> None:
    with anyio.move_on_after(SECONDS) as scope:
        async with serve() as server, client(server) as peer:
            await peer.launch("loop")
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    with pytest.raises(OSError, match=r"."):
        await anyio.connect_tcp("127.0.0.1", server.port)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_on_asyncio_it_may_be_entered_in_one_task_and_left_in_another() -> None:
    server = serve()
    await asyncio.create_task(server.__aenter__())
    async with client(server) as peer:
        await peer.launch("loop")
    await asyncio.create_task(server.__aexit__(None, None, None))


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_on_asyncio_a_task_that_is_cancelled_again_and_again_still_closes_it() -> None:
    async def stay() -> None:
        async with serve() as server, client(server) as peer:
            await peer.launch("loop")
            begun.set_result(server.port)
            await anyio.sleep_forever()

    begun = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(stay())
    port = await begun
    while not task.done():
        task.cancel()
        await asyncio.sleep(0)
    assert task.cancelled()
    with pytest.raises(OSError, match=r"."):
        await anyio.connect_tcp("127.0.0.1", port)


async def test_a_server_that_cannot_begin_leaves_nothing_behind() -> None:
    with anyio.move_on_after(0):
        async with serve():
            pytest.fail("it serves")


async def test_a_server_is_entered_once(server: Server) -> None:
    with pytest.raises(RuntimeError, match="entered once"):
        await server.__aenter__()


async def test_a_port_that_is_taken_is_an_os_error(server: Server) -> None:
    with pytest.raises(OSError, match=r"."):
        async with serve(port=server.port):
            pytest.fail("it serves")
