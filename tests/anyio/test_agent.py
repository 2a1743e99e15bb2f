"""A running ssh-agent answers the server's challenge, with keys of every kind that it holds."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import anyio.abc
import pytest

from pie_anyio import AgentError, AuthenticationError, ConnectionLost, PieClient, SshAgentSigner
from pie_anyio.server import serve
from tests.anyio.world import SOON

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(shutil.which("ssh-agent") is None, reason="there is no ssh-agent here"),
]

KINDS = {"ed25519": [], "rsa": ["-b", "2048"], "ecdsa-256": [], "ecdsa-384": []}


@contextmanager
def agent(folder: Path) -> Iterator[Path]:
    """A running ssh-agent; gives the path of its socket."""
    socket = folder / "agent"
    command = ["ssh-agent", "-D", "-a", str(socket)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it tells where it listens, once it does
        yield socket
        process.terminate()


@pytest.fixture(scope="module")
def full_agent() -> Iterator[tuple[Path, dict[str, str]]]:
    """An agent with a key of every kind, and the public keys."""
    # Not pytest's folder: the path of a socket is bounded to some 100 characters.
    with tempfile.TemporaryDirectory() as name, agent(Path(name)) as socket:
        public: dict[str, str] = {}
        for kind, options in KINDS.items():
            path = Path(name) / kind
            algorithm, _, bits = kind.partition("-")
            sized = ["-b", bits] if bits else options
            subprocess.run(
                [
                    "ssh-keygen",
                    "-q",
                    "-t",
                    algorithm,
                    *sized,
                    "-N",
                    "",
                    "-C",
                    f"my {kind}",
                    "-f",
                    path,
                ],
                check=True,
            )
            subprocess.run(
                ["ssh-add", "-q", str(path)], check=True, env={"SSH_AUTH_SOCK": str(socket)}
            )
            public[kind] = path.with_suffix(".pub").read_text()
        yield socket, public


@pytest.mark.parametrize("kind", KINDS)
async def test_the_agent_proves_who_the_user_is(
    kind: str, full_agent: tuple[Path, dict[str, str]]
) -> None:
    socket, public = full_agent
    with anyio.fail_after(SOON):
        async with serve(authorized_keys={"ada": public[kind]}) as server:
            for name in (f"my {kind}", public[kind], " ".join(public[kind].split()[:2])):
                async with PieClient(server.url) as client:
                    await client.authenticate("ada", SshAgentSigner(name, socket_path=socket))
                    await client.ping()


async def test_the_environment_says_where_the_agent_is_and_its_first_key_is_used(
    full_agent: tuple[Path, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    socket, public = full_agent
    monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
    with anyio.fail_after(SOON):
        keys = await SshAgentSigner().keys()
        assert [key.comment for key in keys] == [f"my {kind}" for kind in KINDS]
        async with serve(authorized_keys={"ada": public["ed25519"]}) as server:
            async with PieClient(server.url) as client:
                await client.authenticate("ada", SshAgentSigner(keys[0].fingerprint()))
            async with PieClient(server.url) as client:
                await client.authenticate("ada", SshAgentSigner())
            async with PieClient(server.url) as client:
                with pytest.raises(AuthenticationError):
                    await client.authenticate("ada", SshAgentSigner("my rsa"))


async def test_a_key_that_the_agent_has_not_is_told_with_those_it_has(
    full_agent: tuple[Path, dict[str, str]],
) -> None:
    socket, public = full_agent
    with anyio.fail_after(SOON):
        async with serve(authorized_keys={"ada": public["rsa"]}) as server:
            async with PieClient(server.url) as client:
                with pytest.raises(AgentError, match=r"no key 'another'; it has .*my ed25519"):
                    await client.authenticate("ada", SshAgentSigner("another", socket_path=socket))
                with pytest.raises(ConnectionLost, match="this side"):
                    await client.ping()


async def test_an_empty_agent_a_missing_one_and_none_at_all_are_told_apart(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    with anyio.fail_after(SOON), tempfile.TemporaryDirectory() as name:
        with agent(Path(name)) as socket:
            with pytest.raises(AgentError, match="ssh-add"):
                await SshAgentSigner(socket_path=socket).sign(b"challenge")
        with pytest.raises(AgentError, match="no ssh-agent answers at"):
            await SshAgentSigner(socket_path=Path(name) / "nothing").sign(b"challenge")
        monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
        with pytest.raises(AgentError, match="SSH_AUTH_SOCK"):
            await SshAgentSigner().sign(b"challenge")


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"", "without an answer"),
        (b"\x00\x00", "without an answer"),
        (b"\x00\x00\x00\x09\x0c", "without an answer"),
        (b"\xff\xff\xff\xff", "announced an answer of 4294967295 bytes"),
        (b"\x00\x00\x00\x01\x05", "refused"),
    ],
)
async def test_an_agent_that_misbehaves_is_told_in_words(answer: bytes, told: str) -> None:
    async def misbehave(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            if answer:
                await stream.send(answer)

    with anyio.fail_after(SOON), tempfile.TemporaryDirectory() as name:
        async with (
            await anyio.create_unix_listener(f"{name}/agent") as listener,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(listener.serve, misbehave)
            with pytest.raises(AgentError, match=told):
                await SshAgentSigner(socket_path=f"{name}/agent").sign(b"challenge")
            tasks.cancel_scope.cancel()
