"""What the user guide promises, one thing at a time: a method, a parameter, an event, a key."""

from __future__ import annotations

import inspect
import tomllib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import anyio
import anyio.abc
import anyio.to_thread
import pytest
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from pie import (
    Event,
    Instance,
    InstanceInfo,
    ParsedPrivateKey,
    PieClient,
    PieError,
)
from pie_anyio.server import serve
from pie_proto import NEED_DATA
from pie_proto import commands as c
from pie_proto import events as e
from pie_proto.server import ServerConnection
from tests.programs import component
from tests.serving import serving

SOON = 30
ROOT = Path(__file__).parent.parent

PrivateKey = Ed25519PrivateKey | rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | dsa.DSAPrivateKey


def text_of(key: PrivateKey) -> str:
    """A key as ssh-keygen writes it, or, of a kind that it writes no more, as openssl does."""
    form = PrivateFormat.PKCS8 if isinstance(key, dsa.DSAPrivateKey) else PrivateFormat.OpenSSH
    return key.private_bytes(Encoding.PEM, form, NoEncryption()).decode()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a server that asks for no proof, and has two programs in its registry."""
    registry = tmp_path_factory.mktemp("registry")
    for name, program in {"text-completion": "arguments", "long-running-task": "echo"}.items():
        (registry / f"{name}.wasm").write_bytes(component(program))
    with serving(registry=registry) as server:
        yield server.url


@asynccontextmanager
async def client_of(url: str) -> AsyncIterator[PieClient]:
    """A client that has authenticated; all of it bounded in time."""
    with anyio.fail_after(SOON):
        async with PieClient(url) as client:
            await client.authenticate("ada")
            yield client


async def listed(client: PieClient, instance: Instance) -> InstanceInfo:
    """What the server's list says of an instance."""
    (info,) = [info for info in await client.list_instances() if info.id == instance.id]
    return info


# ---------------------------------------------------------------------------------------- the names


def test_the_three_names_that_the_guide_imports_are_usable() -> None:
    names: dict[str, type] = {}
    exec("from pie import PieClient, ParsedPrivateKey, PieError", names)
    assert callable(names["PieClient"])
    assert {"from_file", "parse"} <= set(dir(names["ParsedPrivateKey"]))
    assert issubclass(names["PieError"], Exception)


def test_what_is_installed_has_the_guides_module() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packed = set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"])
    assert packed == {"pie.py", *(str(path.parent.name) for path in ROOT.glob("pie_*/__init__.py"))}


# --------------------------------------------------------------------------- the client's lifetime


def test_a_client_needs_nothing_but_the_servers_uri() -> None:
    server_uri, *others = inspect.signature(PieClient).parameters.values()
    assert server_uri.name == "server_uri"
    assert server_uri.kind is server_uri.POSITIONAL_OR_KEYWORD
    assert all(other.kind is other.KEYWORD_ONLY for other in others)
    assert not any(other.default is other.empty for other in others)
    assert not PieClient("ws://127.0.0.1:8080").is_connected


@pytest.mark.anyio
async def test_the_block_begins_with_a_client_that_is_connected(url: str) -> None:
    made = PieClient(url)
    with anyio.fail_after(SOON):
        async with made as client:
            assert client is made
            assert client.is_connected


@pytest.mark.anyio
async def test_the_block_ends_with_a_client_that_is_closed(url: str) -> None:
    async with client_of(url) as client:
        await client.ping()
    assert not client.is_connected
    with pytest.raises(ConnectionError, match="this side"):
        await client.ping()


@pytest.mark.anyio
async def test_a_block_that_is_left_by_an_exception_closes_the_client_too(url: str) -> None:
    with pytest.raises(ZeroDivisionError):
        async with client_of(url) as client:
            raise ZeroDivisionError
    assert not client.is_connected


# ----------------------------------------------------------------------------------- authentication


@pytest.mark.anyio
async def test_the_user_is_the_one_that_was_named() -> None:
    key = ParsedPrivateKey.parse(text_of(Ed25519PrivateKey.generate()))
    with anyio.fail_after(SOON):
        async with serve(authorized_keys={"Ada L.": key.public_key()}) as server:
            async with PieClient(server.url) as client:
                await client.authenticate("Ada L.", key)
                await client.ping()
            async with PieClient(server.url) as client:
                with pytest.raises(PieError, match=r"'ada l\.'"):
                    await client.authenticate("ada l.", key)


@pytest.mark.anyio
async def test_a_key_of_somebody_elses_is_refused() -> None:
    hers, his = (ParsedPrivateKey.parse(text_of(Ed25519PrivateKey.generate())) for _ in range(2))
    with anyio.fail_after(SOON):
        async with serve(authorized_keys={"ada": hers.public_key()}) as server:
            async with PieClient(server.url) as client:
                with pytest.raises(PieError, match="the server said"):
                    await client.authenticate("ada", his)


# --------------------------------------------------------------------------------------- programs


@pytest.mark.anyio
async def test_a_program_is_known_by_the_blake3_hash_of_its_bytes(url: str) -> None:
    async with client_of(url) as client:
        for program in (component("hello"), bytearray(component("echo"))):
            assert await client.upload_program(program) == blake3(program).hexdigest()


@pytest.mark.anyio
async def test_the_hash_says_which_of_several_programs_is_launched(url: str) -> None:
    async with client_of(url) as client:
        hashes = [await client.upload_program(component(name)) for name in ("hello", "arguments")]
        results = [
            await (await client.launch_instance(program_hash, ["first"])).result()
            for program_hash in hashes
        ]
        assert results == ["done", "first"]


# ---------------------------------------------------------------------------------------- launching


@pytest.mark.anyio
async def test_a_launch_by_hash_alone_is_attached_and_without_arguments(url: str) -> None:
    async with client_of(url) as client:
        instance = await client.launch_instance(await client.upload_program(component("echo")))
        info = await listed(client, instance)
        assert (info.arguments, info.status) == ((), "Attached")


@pytest.mark.anyio
async def test_a_launch_by_hash_can_be_detached(url: str) -> None:
    async with client_of(url) as client:
        program_hash = await client.upload_program(component("echo"))
        for instance in (
            await client.launch_instance(program_hash, ["a", "b"], True),
            await client.launch_instance(hash=program_hash, detached=True, args=("a", "b")),
        ):
            info = await listed(client, instance)
            assert (info.arguments, info.status) == (("a", "b"), "Detached")


@pytest.mark.anyio
async def test_a_launch_by_name_alone_is_attached_and_without_arguments(url: str) -> None:
    async with client_of(url) as client:
        instance = await client.launch_instance_from_registry("long-running-task")
        info = await listed(client, instance)
        assert (info.arguments, info.status) == ((), "Attached")


@pytest.mark.anyio
async def test_the_name_says_which_program_of_the_registry_is_launched(url: str) -> None:
    async with client_of(url) as client:
        completion = await client.launch_instance_from_registry("text-completion", ["--prompt"])
        assert await completion.result() == "--prompt"
        task = await client.launch_instance_from_registry("long-running-task")
        await task.send("still here?")
        assert await task.recv() == (Event.Message, "echo: still here?")


@pytest.mark.anyio
async def test_a_launch_by_name_can_be_detached(url: str) -> None:
    async with client_of(url) as client:
        for instance in (
            await client.launch_instance_from_registry("long-running-task", ["a"], True),
            await client.launch_instance_from_registry(
                name="long-running-task", detached=True, args=["a"]
            ),
        ):
            info = await listed(client, instance)
            assert (info.arguments, info.status) == (("a",), "Detached")


# ---------------------------------------------------------------------------------------- instances


@pytest.mark.anyio
async def test_the_list_has_the_attached_and_the_detached_with_their_arguments(url: str) -> None:
    async with client_of(url) as client:
        here = await client.launch_instance_from_registry("long-running-task", ["here"])
        there = await client.launch_instance_from_registry("long-running-task", ["there"], True)
        infos = await client.list_instances()
        assert isinstance(infos, list)
        found = {info.id: (info.arguments, info.status) for info in infos}
        assert found[here.id] == (("here",), "Attached")
        assert found[there.id] == (("there",), "Detached")


@pytest.mark.anyio
async def test_the_client_terminates_the_instance_that_is_named(url: str) -> None:
    async with client_of(url) as client:
        first, second = [
            await client.launch_instance_from_registry("long-running-task") for _ in range(2)
        ]
        await client.terminate_instance(first.id)
        assert (await first.recv())[0].name == "Aborted"
        await second.send("and you?")
        assert await second.recv() == (Event.Message, "echo: and you?")


@pytest.mark.anyio
async def test_an_instance_terminates_itself_and_no_other(url: str) -> None:
    async with client_of(url) as client:
        first, second = [
            await client.launch_instance_from_registry("long-running-task") for _ in range(2)
        ]
        await first.terminate()
        assert (await first.recv())[0].name == "Aborted"
        await second.send("and you?")
        assert await second.recv() == (Event.Message, "echo: and you?")


@pytest.mark.anyio
@pytest.mark.parametrize("message", ["", " two\n lines \n", "Grüße, 世界 🦀", "x" * 300_000])
async def test_a_message_arrives_as_it_was_sent(message: str, url: str) -> None:
    async with client_of(url) as client:
        instance = await client.launch_instance_from_registry("long-running-task")
        await instance.send(message)
        assert await instance.recv() == (Event.Message, f"echo: {message}")


@pytest.mark.anyio
async def test_what_was_detached_can_be_spoken_to_once_it_is_attached(url: str) -> None:
    async with client_of(url) as client:
        launched = await client.launch_instance_from_registry("long-running-task", detached=True)
    async with client_of(url) as client:
        instance = await client.attach_instance(launched.id)
        assert instance.id == launched.id
        await instance.send("still here?")
        assert await instance.recv() == (Event.Message, "echo: still here?")


@pytest.mark.anyio
async def test_what_ended_detached_is_told_whole_to_who_attaches_it_later(url: str) -> None:
    async with client_of(url) as client:
        launched = await client.launch_instance_from_registry("text-completion", ["kept"], True)
        # Asked again and again: nothing tells this client that the program has come to its end.
        while (status := (await listed(client, launched)).status) != "Finished":
            assert status == "Detached"
    async with client_of(url) as client:
        instance = await client.attach_instance(launched.id)
        events = [pair async for pair in instance]
        assert events == [(Event.Stdout, "kept\n"), (Event.Completed, "kept")]


# ------------------------------------------------------------------------------------- the server


@pytest.mark.anyio
async def test_a_ping_tells_whether_the_server_is_there() -> None:
    there = ExitStack()
    server = there.enter_context(serving())
    with there, anyio.fail_after(SOON):
        async with PieClient(server.url) as client:
            await client.authenticate("ada")
            asked = client.statistics().requests_sent
            await client.ping()
            assert client.statistics().requests_sent == asked + 1
            await anyio.to_thread.run_sync(there.close)
            with pytest.raises(ConnectionError):
                await client.ping()


@pytest.mark.anyio
async def test_a_query_is_about_its_subject(url: str) -> None:
    async with client_of(url) as client:
        assert await client.query("model_status", "") == "{}"
        assert "instances running" in await client.query(subject="backend_stats", record="")


@pytest.mark.anyio
async def test_a_query_says_which_record_it_means(url: str) -> None:
    async with client_of(url) as client:
        there = await client.upload_program(component("hello"))
        assert await client.query("program_exists", there) == "true"
        assert await client.query("program_exists", "0" * 64) == "false"


# ------------------------------------------------------------------------------------------- events


@asynccontextmanager
async def server_whose_programs_say(event: Event, data: str | bytes) -> AsyncIterator[str]:
    """A server on which all that a program does is to say one thing; gives its URL.

    For any kind of event: no program can make the embedded server run out of resources.
    """
    instance_id = "11111111-1111-4111-8111-111111111111"

    async def talk(stream: anyio.abc.SocketStream) -> None:
        connection = ServerConnection(now=anyio.current_time())
        async with stream:
            while True:
                while sent := connection.data_to_send(now=anyio.current_time()):
                    await stream.send(sent)
                try:
                    connection.receive_data(await stream.receive(), anyio.current_time())
                except (anyio.EndOfStream, anyio.BrokenResourceError):
                    return
                while (asked := connection.next_event()) is not NEED_DATA:
                    match asked:
                        case e.HandshakeReceived():
                            connection.accept()
                        case e.UnknownMessage():
                            pass
                        case e.Request(int(request_id), c.Identify()):
                            connection.answer(
                                e.Authenticated(request_id, e.Authentication.ASSERTED)
                            )
                        case e.Request(int(request_id), c.LaunchFromRegistry()):
                            connection.answer(e.Launched(request_id, instance_id, False))
                            connection.emit(e.InstanceEvent(instance_id, event, data))
                        case _:
                            return

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, talk)
        yield f"ws://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}"
        tasks.cancel_scope.cancel()


@pytest.mark.anyio
@pytest.mark.parametrize("name", [event.name for event in Event])
async def test_each_kind_of_event_arrives_under_its_name(name: str) -> None:
    said: str | bytes = b"\x00\xff of it" if name == "Blob" else "what there is to say\n"
    async with server_whose_programs_say(Event[name], said) as url, client_of(url) as client:
        instance = await client.launch_instance_from_registry("text-completion")
        event, data = await instance.recv()
        assert event.name == name
        assert isinstance(data, type(said))
        assert data == said


# --------------------------------------------------------------------------------------------- keys

TAKEN: dict[str, tuple[Callable[[], PrivateKey], str]] = {
    "RSA of 2048 bits": (lambda: rsa.generate_private_key(65537, 2048), "ssh-rsa"),
    "RSA of 3072 bits": (lambda: rsa.generate_private_key(65537, 3072), "ssh-rsa"),
    "Ed25519": (Ed25519PrivateKey.generate, "ssh-ed25519"),
    "ECDSA on P-256": (lambda: ec.generate_private_key(ec.SECP256R1()), "ecdsa-sha2-nistp256"),
    "ECDSA on P-384": (lambda: ec.generate_private_key(ec.SECP384R1()), "ecdsa-sha2-nistp384"),
}


@pytest.mark.parametrize("kind", TAKEN)
def test_a_key_of_each_kind_in_the_guide_is_taken(kind: str) -> None:
    generate, key_type = TAKEN[kind]
    assert ParsedPrivateKey.parse(text_of(generate())).key_type == key_type


REFUSED: dict[str, tuple[Callable[[], PrivateKey], str]] = {
    "RSA of 1024 bits": (lambda: rsa.generate_private_key(65537, 1024), "RSA key of 1024 bits"),
    "RSA of 2047 bits": (lambda: rsa.generate_private_key(65537, 2047), "RSA key of 2047 bits"),
    "ECDSA on P-521": (lambda: ec.generate_private_key(ec.SECP521R1()), "ECDSA key on P-521"),
    "DSA": (lambda: dsa.generate_private_key(1024), "kind DSA"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_key_of_another_kind_is_refused_with_what_it_is_and_what_is_taken(kind: str) -> None:
    generate, found = REFUSED[kind]
    with pytest.raises(PieError, match=f"{found}: taken are Ed25519, RSA of 2048 to 8192 bits"):
        ParsedPrivateKey.parse(text_of(generate()))
