"""What Pie's user guide calls, called as it calls it: same names, same arguments, same results."""

from __future__ import annotations

import asyncio
import inspect
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

import pie
import pie_anyio
from pie import ParsedPrivateKey, PieClient, PieError
from pie_anyio.server import RunnerLimits
from pie_proto.limits import DEFAULT_TIMEOUT
from tests.programs import component
from tests.serving import serving

SOON = 30
TOKEN = "let me in"
KINDS: dict[str, Callable[[], Ed25519PrivateKey | rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey]]
KINDS = {
    "id_ed25519": Ed25519PrivateKey.generate,
    "id_rsa": lambda: rsa.generate_private_key(65537, 2048),
    "id_ecdsa_256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "id_ecdsa_384": lambda: ec.generate_private_key(ec.SECP384R1()),
}


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of the guide's reader: keys, a program, and the server's registry."""
    home = tmp_path_factory.mktemp("reader")
    (home / ".ssh").mkdir()
    for name, generate in KINDS.items():
        file = home / ".ssh" / name
        file.touch(mode=0o600)
        file.write_bytes(
            generate().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        )
    (home / "my_program.wasm").write_bytes(component("echo"))
    (home / "registry").mkdir()
    for name, program in {"text-completion": "reply", "long-running-task": "hello"}.items():
        (home / "registry" / f"{name}.wasm").write_bytes(component(program))
    return home


@pytest.fixture
def home(reader: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The reader's home, as the place where one is."""
    monkeypatch.setenv("HOME", str(reader))
    monkeypatch.setenv("USERPROFILE", str(reader))
    monkeypatch.chdir(reader)
    return reader


@pytest.fixture(scope="module")
def port(reader: Path) -> Iterator[int]:
    """Of a server that asks for no proof."""
    with serving(registry=reader / "registry") as server:
        yield server.port


@pytest.fixture(scope="module")
def guarded(reader: Path) -> Iterator[int]:
    """The port of a server that lets in who has one of the reader's keys, or the token."""
    keys = [ParsedPrivateKey.from_file(reader / ".ssh" / name).public_key() for name in KINDS]
    with serving(authorized_keys={"username": "\n".join(keys)}, internal_token=TOKEN) as server:
        yield server.port


# -------------------------------------------------------------------------------------- quick start


def test_the_quick_start_on_asyncio(
    home: Path, guarded: int, capsys: pytest.CaptureFixture[str]
) -> None:
    async def main() -> None:
        async with PieClient(f"ws://127.0.0.1:{guarded}") as client:
            key = ParsedPrivateKey.from_file("~/.ssh/id_ed25519")
            await client.authenticate("username", key)
            with open("my_program.wasm", "rb") as f:  # noqa: ASYNC230, PTH123
                await client.upload_program(f.read())
            program_hash = blake3(component("echo")).hexdigest()
            instance = await client.launch_instance(program_hash)
            await instance.send("hello")
            event, message = await instance.recv()
            print(f"Received: {event.name} - {message!s}")  # noqa: T201

    asyncio.run(asyncio.wait_for(main(), SOON))
    assert capsys.readouterr().out == "Received: Message - echo: hello\n"


@pytest.mark.anyio
async def test_without_authentication_on_the_server_any_username_works_without_a_key(
    port: int,
) -> None:
    with anyio.fail_after(SOON):
        async with PieClient(f"ws://127.0.0.1:{port}") as client:
            await client.authenticate("any_username")
            assert client.is_connected
        assert not client.is_connected


@pytest.mark.anyio
async def test_a_server_with_authentication_on_says_no_without_a_key(guarded: int) -> None:
    with anyio.fail_after(SOON):
        with pytest.raises(PieError):
            async with PieClient(f"ws://127.0.0.1:{guarded}") as client:
                await client.authenticate("username")


@pytest.mark.anyio
async def test_the_server_itself_is_let_in_with_its_token(guarded: int) -> None:
    with anyio.fail_after(SOON):
        async with PieClient(f"ws://127.0.0.1:{guarded}") as client:
            await client.internal_authenticate(TOKEN)
            await client.ping()


# --------------------------------------------------------------------------------------------- keys


@pytest.mark.anyio
@pytest.mark.parametrize("name", KINDS)
async def test_each_kind_of_key_lets_its_owner_in_from_a_file_and_from_text(
    name: str, home: Path, guarded: int
) -> None:
    content = (home / ".ssh" / name).read_text()
    for key in (ParsedPrivateKey.from_file(f"~/.ssh/{name}"), ParsedPrivateKey.parse(content)):
        with anyio.fail_after(SOON):
            async with PieClient(f"ws://127.0.0.1:{guarded}") as client:
                await client.authenticate("username", key)
                await client.ping()


# --------------------------------------------------------------------------------------- the client


@pytest.mark.anyio
async def test_every_method_of_the_client(home: Path, port: int) -> None:
    program = component("echo")
    program_hash = blake3(program).hexdigest()
    with anyio.fail_after(SOON):
        async with PieClient(f"ws://127.0.0.1:{port}") as client:
            await client.authenticate("every_method")
            await client.ping()
            await client.upload_program(program)
            assert await client.program_exists(program_hash) is True
            assert await client.program_exists("0" * 64) is False
            instance = await client.launch_instance(program_hash, [], False)
            other = await client.launch_instance(hash=program_hash, args=["a"], detached=True)
            third = await client.launch_instance_from_registry("text-completion", ["b"], True)
            listed = {info.id for info in await client.list_instances()}
            assert listed >= {instance.id, other.id, third.id}
            for each in (other, third):
                await client.terminate_instance(each.id)
            await instance.terminate()
            event, data = await instance.recv()
            assert (event.name, type(data)) == ("Aborted", str)
            assert isinstance(await client.query("model_status", ""), str)


def test_the_defaults_are_the_guides() -> None:
    def defaults(function: Callable[..., object]) -> dict[str, object]:
        parameters = inspect.signature(function).parameters.values()
        given = {p.name: p.default for p in parameters if p.default is not p.empty}
        assert given.pop("timeout") is DEFAULT_TIMEOUT
        return given

    assert defaults(PieClient.authenticate) == {"private_key": None}
    # A list, as a default, would be one for all calls; an empty tuple is the same to who calls.
    for launch in (PieClient.launch_instance, PieClient.launch_instance_from_registry):
        assert defaults(launch) == {"args": (), "detached": False, "input": None}
        assert inspect.signature(launch).parameters["input"].kind is inspect.Parameter.KEYWORD_ONLY
    server_uri, *others = inspect.signature(PieClient).parameters.values()
    assert server_uri.name == "server_uri"
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in others)


# ---------------------------------------------------------------------------------------- instances


@pytest.mark.anyio
async def test_what_a_program_prints_is_streamed_until_it_completes(
    port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with anyio.fail_after(SOON):
        async with PieClient(f"ws://127.0.0.1:{port}") as client:
            await client.authenticate("username")
            instance = await client.launch_instance_from_registry(
                "text-completion", ["--prompt", "Hello"]
            )
            await instance.send("Continue the story...")
            while True:
                event, data = await instance.recv()
                if event.name == "Stdout":
                    print(data, end="")  # noqa: T201
                elif event.name == "Completed":
                    break
    assert capsys.readouterr().out == "Continue the story...\n"


@pytest.mark.anyio
async def test_a_detached_instance_is_attached_later_by_its_id(port: int) -> None:
    with anyio.fail_after(SOON):
        async with PieClient(f"ws://127.0.0.1:{port}") as client:
            await client.authenticate("username")
            instance = await client.launch_instance_from_registry(
                "long-running-task", detached=True
            )
            instance_id = instance.id
            assert isinstance(instance_id, str)
        async with PieClient(f"ws://127.0.0.1:{port}") as client:
            await client.authenticate("username")
            instance = await client.attach_instance(instance_id)
            event, data = await instance.recv()
            assert (event.name, data) == ("Stdout", "hello from pie\n")


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("program", "ends"),
    [
        ("conversation", ["Stdout", "Stderr", "Message", "Blob", "Completed"]),
        ("sleep", ["Stdout", "Aborted"]),
        ("error", ["Exception"]),
        ("too big to begin", ["ServerError"]),
    ],
)
async def test_events_have_the_guides_names_and_their_data_its_types(
    program: str, ends: list[str]
) -> None:
    seen: dict[str, str | bytes] = {}
    too_little = RunnerLimits(memory_bytes=65_535)
    limits = {"runner_limits": too_little} if program == "too big to begin" else {}
    with anyio.fail_after(SOON):
        with serving(**limits) as server:
            async with PieClient(f"ws://127.0.0.1:{server.port}") as client:
                await client.authenticate("username")
                program_hash = await client.upload_program(
                    component("hello" if limits else program)
                )
                instance = await client.launch_instance(program_hash)
                while not seen.keys() & {"Completed", "Aborted", "Exception", "ServerError"}:
                    event, data = await instance.recv()
                    if data == "ready":
                        await instance.send("hello")
                        await instance.upload_blob(b"\x00\xff")
                    if program == "sleep" and event.name == "Stdout":
                        await instance.terminate()
                    seen.setdefault(event.name, data)
    assert sorted(seen) == sorted(ends)
    assert all(isinstance(data, bytes if name == "Blob" else str) for name, data in seen.items())


def test_the_nine_kinds_of_event() -> None:
    assert [event.name for event in pie.Event] == [
        *("Message", "Stdout", "Stderr", "Blob"),
        *("Completed", "Aborted", "Exception", "ServerError", "OutOfResources"),
    ]


# ------------------------------------------------------------------------------------------- errors


async def what_is_caught(uri: str) -> str:
    """The guide's two branches, and which of them was taken."""
    try:
        async with PieClient(uri) as client:
            await client.authenticate("username")
            await client.launch_instance("invalid_hash")
    except PieError as e:
        return f"Pie error: {e}"
    except ConnectionError as e:
        return f"Connection failed: {e}"
    return "nothing"


@pytest.mark.anyio
async def test_a_no_of_the_servers_is_a_pie_error_that_says_what_was_tried(port: int) -> None:
    with anyio.fail_after(SOON):
        said = await what_is_caught(f"ws://127.0.0.1:{port}")
    assert said == (
        "Pie error: launching program invalid_hash: the server said: "
        "Program not found: invalid_hash"
    )


@pytest.mark.anyio
async def test_no_server_is_a_connection_error_that_says_where(home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        uri = f"ws://127.0.0.1:{taken.getsockname()[1]}"
        with anyio.fail_after(SOON):
            said = await what_is_caught(uri)
    assert said.startswith(f"Connection failed: no connection to {uri}: Connection refused")


def test_the_two_kinds_of_error_are_told_apart() -> None:
    assert not issubclass(PieError, ConnectionError)
    for name in pie_anyio.__all__:
        member = getattr(pie, name)
        if isinstance(member, type) and issubclass(member, ConnectionError):
            assert not issubclass(member, PieError)


# ---------------------------------------------------------------------------------------- the names


def test_the_guides_module_has_all_of_ours_and_nothing_else() -> None:
    names: dict[str, object] = {}
    exec("from pie import *", names)
    del names["__builtins__"]
    assert names == {name: getattr(pie_anyio, name) for name in pie_anyio.__all__}
