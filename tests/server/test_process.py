"""The embedded server in the dialect `process`, over TCP: names, inputs, ends, and who comes in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import msgpack
import pytest

from pie_anyio.server import Server, serve
from pie_proto import (
    AnswerChallenge,
    Attached,
    AttachInstance,
    Authenticated,
    AuthenticateWithToken,
    Authentication,
    ChallengeReceived,
    Command,
    ConnectFailed,
    ConnectionClosed,
    Event,
    Identify,
    InstanceInfo,
    InstancesListed,
    Launched,
    LaunchFromRegistry,
    LaunchInstance,
    ListInstances,
    ProgramExists,
    ProgramExistsAnswered,
    ProgramUploaded,
    Query,
    QueryAnswered,
    Terminated,
    TerminateInstance,
    UploadBlob,
    UploadProgram,
    error_for,
    hash_of,
)
from pie_proto.dialects.process import PROCESS_0_3, PROCESS_0_5, ProcessDialect
from tests.programs import component, text
from tests.server.server_peer import KEY, LINE, Peer, connected, streams

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("tidy")]

HEADER = "x-pie-identity"


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """A server that speaks like release 0.5."""
    async with serve(dialect="process") as server:
        yield server


@asynccontextmanager
async def client(server: Server, user: str = "acme/joe") -> AsyncIterator[Peer]:
    async with connected(server, PROCESS_0_5, "/v1/ws", [(HEADER, user)]) as peer:
        assert isinstance(await peer.ask(Identify("joe")), Authenticated)
        yield peer


def manifest(name: str, version: str) -> str:
    return f'[package]\nname = "{name}"\nversion = "{version}"\n'


async def upload(peer: Peer, program: str, name: str, version: str = "0.1.0") -> None:
    data = component(program)
    command = UploadProgram(
        size=len(data), hash=hash_of(data), data=data, manifest=manifest(name, version)
    )
    assert await peer.ask(command) == ProgramUploaded(peer.last_id, hash_of(data))


async def launch(peer: Peer, name: str, given: str | None = "{}") -> str:
    outcome = await peer.ask(LaunchFromRegistry(name=name, input=given))
    assert isinstance(outcome, Launched), outcome
    return outcome.instance_id


async def listed(peer: Peer) -> tuple[InstanceInfo, ...]:
    outcome = await peer.ask(ListInstances())
    assert isinstance(outcome, InstancesListed)
    return outcome.instances


async def none_left(peer: Peer) -> None:
    """Ask until nothing runs any more."""
    while await listed(peer):
        pass


# ------------------------------------------------------------------------------------ coming in


@pytest.mark.parametrize(
    ("target", "headers", "status", "words"),
    [
        ("/", [(HEADER, "acme/joe")], 404, "connect to /v1/ws"),
        ("/v1/ws", [], 401, HEADER),
        ("/v1/ws", [(HEADER, "acme/")], 401, "TENANT/USER"),
        ("/v1/ws", [(HEADER, "acme/joe"), ("origin", "https://evil.example")], 403, "evil"),
    ],
)
async def test_who_does_not_open_as_is_due_is_turned_away_in_words(
    server: Server, target: str, headers: list[tuple[str, str]], status: int, words: str
) -> None:
    async with await anyio.connect_tcp("127.0.0.1", server.port) as stream:
        peer = Peer(stream, PROCESS_0_5, target, headers)
        closed = await peer.closed()
        assert closed.status == status
        assert words in closed.body
        with pytest.raises(ConnectFailed):
            raise error_for(closed)


async def test_the_opening_says_who_the_user_is(server: Server) -> None:
    async with client(server, "acme/joe") as joe, client(server, "ann") as ann:
        await upload(joe, "sleep", "sleep")
        instance_id = await launch(joe, "sleep")
        assert [row.id for row in await listed(joe)] == [instance_id]
        assert await listed(ann) == ()
        assert await ann.refusal(AttachInstance(instance_id)) == "Process not found"
        assert await ann.refusal(TerminateInstance(instance_id)) == "Process not found"


async def test_older_servers_of_the_family_want_a_name_on_any_path() -> None:
    async with (
        serve(dialect=PROCESS_0_3, internal_token="s3cret") as server,
        connected(server, PROCESS_0_3) as joe,
        connected(server, PROCESS_0_3, "/any") as internal,
    ):
        assert await joe.ask(Identify("joe")) == Authenticated(1, Authentication.ASSERTED)
        await upload(joe, "hello", "hello")
        token = AuthenticateWithToken("s3cret")
        assert await internal.ask(token) == Authenticated(1, Authentication.TOKEN)
        instance_id = await launch(internal, "hello")
        assert (await internal.read_to_end(instance_id))[-1] == (Event.Completed, "done")


async def test_older_servers_of_the_family_have_a_challenge_signed() -> None:
    async with (
        serve(dialect="process-0.3", authorized_keys={"joe": LINE}) as server,
        connected(server, PROCESS_0_3) as peer,
        connected(server, PROCESS_0_3) as stranger,
    ):
        challenged = await peer.ask(Identify("joe"))
        assert isinstance(challenged, ChallengeReceived)
        proved = await peer.ask(AnswerChallenge(KEY.sign(challenged.challenge)))
        assert proved == Authenticated(2, Authentication.PROVED)
        assert await stranger.refusal(Identify("ann")) == "User 'ann' is not authorized"
        assert (await stranger.closed()).code == 1000


async def test_a_client_of_unknown_family_is_understood_by_its_second_word(server: Server) -> None:
    async with connected(server, PROCESS_0_5, "/v1/ws", [(HEADER, "joe")]) as peer:
        other = msgpack.packb({"type": "identification", "corr_id": 7, "username": "joe"})
        # The core of this client would not send it: so, a frame of our own (masked with 0).
        await peer.stream.send(bytes((0x82, 0x80 | len(other))) + bytes(4) + other)
        assert await peer.ask(Identify("joe")) == Authenticated(1, Authentication.ASSERTED)


def test_what_such_servers_do_not_know_cannot_be_given() -> None:
    with pytest.raises(ValueError, match="take a user at their word"):
        serve(dialect="process", authorized_keys={"joe": LINE})
    with pytest.raises(ValueError, match="know no internal token"):
        serve(dialect="process", internal_token="s3cret")
    with pytest.raises(ValueError, match="no family of servers; there are 'instance'"):
        serve(dialect="esperanto")


# ----------------------------------------------------------------------------------------- programs


async def test_programs_are_launched_by_the_names_of_their_manifests(server: Server) -> None:
    async with client(server) as peer:
        await upload(peer, "error", "tool", "0.9.0")
        await upload(peer, "hello", "tool", "0.10.0")
        assert isinstance(await peer.ask(ProgramExists("tool@0.9.0")), ProgramExistsAnswered)
        for name, end in (
            ("tool", (Event.Completed, "done")),
            ("tool@0.10.0", (Event.Completed, "done")),
            ("tool@0.9.0", (Event.Exception, "it went wrong")),
        ):
            assert (await peer.read_to_end(await launch(peer, name)))[-1] == end
        # What is uploaded again is what is meant.
        await upload(peer, "hello", "tool", "0.9.0")
        assert (await peer.read_to_end(await launch(peer, "tool@0.9.0")))[-1][0] is Event.Completed
        assert "Program not found" in await peer.refusal(LaunchFromRegistry(name="tool@1.0.0"))


async def test_what_exists_is_told_by_name_and_by_hash(tmp_path: Path) -> None:
    (tmp_path / "echo@1.2.3.wat").write_text(text("echo"))
    data = component("hello")
    async with serve(dialect="process", registry=tmp_path) as server, client(server) as peer:
        for known in (False, True):
            for name in (hash_of(data), "tool@0.1.0"):
                answer = await peer.ask(ProgramExists(name))
                assert answer == ProgramExistsAnswered(peer.last_id, known)
            await peer.upload(data)
            await upload(peer, "hello", "tool")
        answer = await peer.ask(ProgramExists("echo@1.2.3"))
        assert answer == ProgramExistsAnswered(peer.last_id, True)
        launched = await peer.ask(LaunchInstance(hash=hash_of(data)))
        assert isinstance(launched, Launched)
        await peer.read_to_end(launched.instance_id)
        # Beside what was uploaded, there is the registry.
        await launch(peer, "echo")
        assert [row.program for row in await listed(peer)] == ["echo@1.2.3"]


async def test_names_outlive_the_server_in_a_folder(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serve(dialect="process", programs=tmp_path) as server, client(server) as peer:
        await upload(peer, "hello", "tool", "0.9.0")
        await upload(peer, "error", "tool", "0.10.0")
    name = tmp_path / "tool@0.10.0.hash"
    assert name.read_text() == hash_of(component("error"))
    name.write_text("no hash")
    async with serve(dialect="process", programs=tmp_path) as server, client(server) as peer:
        assert (await peer.read_to_end(await launch(peer, "tool")))[-1] == (Event.Completed, "done")
    assert [record.getMessage() for record in caplog.records] == [
        f"{name} names no program: it holds no hash"
    ]
    caplog.clear()


async def test_what_cannot_run_here_is_refused_in_words(server: Server) -> None:
    async with client(server) as peer:
        source = b"async def main(input): ..."
        command = UploadProgram(
            size=len(source), hash=hash_of(source), data=source, manifest=manifest("agent", "0.1.0")
        )
        assert "programs in source cannot run here" in await peer.refusal(command)
        answer = await peer.ask(ProgramExists("agent@0.1.0"))
        assert answer == ProgramExistsAnswered(peer.last_id, False)


class Careless(ProcessDialect):
    """A client that says what a server will refuse."""

    def objection(self, command: Command) -> None:
        """Nothing is objected to."""

    def program_of(self, command: object) -> str:
        """Whatever a manifest says."""
        return "a program"

    def registered_name(self, command: object) -> None:
        """Whatever a manifest says."""


async def test_what_names_no_program_is_refused_in_the_servers_words(server: Server) -> None:
    data = component("hello")
    nameless = UploadProgram(
        size=len(data), hash=hash_of(data), data=data, manifest="[package]\nname = 1"
    )
    careless = Careless(PROCESS_0_5.capabilities)
    async with connected(server, careless, "/v1/ws", [(HEADER, "joe")]) as peer:
        await peer.ask(Identify("joe"))
        assert "Invalid manifest: " in await peer.refusal(nameless)
        reason = await peer.refusal(ProgramExists("hello@1"))
        assert reason == "Invalid program identifier hello@1"
        assert "no registry" in await peer.refusal(LaunchFromRegistry(name="a/b@1"))


# -------------------------------------------------------------------------------------------- input


async def test_an_input_reaches_the_program_as_its_arguments(server: Server) -> None:
    async with client(server) as peer:
        await upload(peer, "arguments", "arguments")
        instance_id = await launch(peer, "arguments", '{"prompt": "Hi", "n": 3}')
        *printed, end = await peer.read_to_end(instance_id)
        assert streams(printed) == {Event.Stdout: "--prompt\nHi\n--n\n3\n"}
        assert end[0] is Event.Completed


async def test_a_bad_input_is_an_error_of_the_new_instance(server: Server) -> None:
    async with client(server) as peer:
        await upload(peer, "arguments", "arguments")
        for given, words in (
            ('{"a-b": 1}', "no JSON object"),
            ('{"a": "x\\u0000y"}', "contains a NUL"),
        ):
            instance_id = await launch(peer, "arguments", given)
            [(event, reason)] = await peer.read_to_end(instance_id)
            assert event is Event.Exception
            assert words in str(reason)
        detached = LaunchFromRegistry(name="arguments", input='{"": 1}', detached=True)
        assert "it has ended" in await peer.refusal(detached)
        assert await listed(peer) == ()


# ---------------------------------------------------------------------------------------- instances


async def test_messages_and_files_reach_an_instance_without_an_answer(server: Server) -> None:
    content = bytes(range(256))
    async with client(server) as peer:
        await upload(peer, "echo_blob", "echo_blob")
        instance_id = await launch(peer, "echo_blob")
        for data in (content, b"small", b""):
            await peer.tell(
                UploadBlob(instance_id=instance_id, size=len(data), hash=hash_of(data), data=data)
            )
        *events, end = await peer.read_to_end(instance_id)
        assert [data for event, data in events if event is Event.Blob] == [content, b"small"]
        assert end[0] is Event.Completed


async def test_a_terminated_instance_is_told_so_and_then_is_not_there(server: Server) -> None:
    async with client(server) as peer, client(server) as other:
        await upload(peer, "sleep", "sleep")
        instance_id = await launch(peer, "sleep", '{"a": 1}')
        row = InstanceInfo(
            id=instance_id,
            arguments=("--a", "1"),
            status="Running",
            program="sleep@0.1.0",
            input='{"a": 1}',
        )
        assert await listed(peer) == (row,)
        already = await other.refusal(AttachInstance(instance_id))
        assert already == "Cannot attach: already attached"
        assert isinstance(await peer.ask(TerminateInstance(instance_id)), Terminated)
        assert (await peer.read_to_end(instance_id))[-1] == (Event.Aborted, "Signal")
        assert await other.refusal(TerminateInstance(instance_id)) == "Process not found"
        assert await peer.refusal(TerminateInstance("zz")) == "Invalid process ID"
        assert await peer.refusal(AttachInstance("zz")) == "Invalid process_id"


async def test_attached_instances_end_with_their_connection(server: Server) -> None:
    async with client(server) as other:
        async with client(server) as peer:
            await upload(peer, "sleep", "sleep")
            await peer.read(await launch(peer, "sleep"))
            assert len(await listed(other)) == 1
        await none_left(other)


async def test_a_detached_instance_is_listed_attached_and_ends_with_its_attacher(
    server: Server,
) -> None:
    async with client(server) as other:
        async with client(server) as peer:
            await upload(peer, "echo", "echo")
            outcome = await peer.ask(LaunchFromRegistry(name="echo", detached=True))
            assert isinstance(outcome, Launched)
        async with client(server) as peer:
            [row] = await listed(peer)
            assert (row.id, row.program, row.input) == (outcome.instance_id, "echo@0.1.0", "{}")
            assert isinstance(await peer.ask(AttachInstance(row.id)), Attached)
            await peer.say(row.id, "hi")
            assert await peer.read(row.id) == (Event.Message, "echo: hi")
        await none_left(other)


async def test_nothing_is_kept_of_a_detached_instance_that_has_ended(server: Server) -> None:
    async with client(server) as peer:
        await upload(peer, "hello", "hello")
        await upload(peer, "loop", "loop")
        await peer.ask(LaunchFromRegistry(name="hello", detached=True))
        await none_left(peer)
        await peer.ask(LaunchFromRegistry(name="loop", detached=True))
        [row] = await listed(peer)
        assert isinstance(await peer.ask(TerminateInstance(row.id)), Terminated)
        await none_left(peer)
        assert await peer.refusal(AttachInstance(row.id)) == "Process not found"


async def test_only_the_models_can_be_asked_about(server: Server) -> None:
    async with client(server) as peer:
        answer = await peer.ask(Query("model_status", ""))
        assert answer == QueryAnswered(peer.last_id, "{}")
        assert "backend_stats" in await peer.refusal(Query("backend_stats", ""))


async def test_a_close_is_answered_with_the_end_of_the_line(server: Server) -> None:
    async with client(server) as peer:
        peer.connection.close(now=anyio.current_time())
        closed = await peer.closed()
        assert closed == ConnectionClosed(by=closed.by, code=1000)
