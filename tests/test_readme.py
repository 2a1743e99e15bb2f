"""The README's samples run as they stand, address and names apart, on asyncio and on trio."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pie_anyio import ParsedPrivateKey
from tests.programs import component

README = Path(__file__).parent.parent / "README.md"
SAMPLE = re.compile(r"<!-- sample: (\w+) -->\n```python\n(.*?)```", re.DOTALL)
ADDRESS = "ws://127.0.0.1:8080"

SAMPLES = dict(SAMPLE.findall(README.read_text(encoding="utf-8")))

# What each sample prints, given the programs that stand in for the reader's.
OPEN_SERVER = {
    "open": "",
    "stream": "Continue the story.\n",
    "detached": "forty-two\n",
    "errors": (
        "Pie said no: launching program not the hash of any program: the server said: "
        "Program not found: not the hash of any program\n"
    ),
    "serve": "{}\n",
}
CLOSED_SERVER = {
    "launch": ("Stdout Tell me more.\nStdout \n\nMessage Tell me more.\nCompleted Tell me more.\n"),
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reader's home: a key, a program, and the folder that is the server's registry."""
    home = tmp_path_factory.mktemp("home")
    (home / ".ssh").mkdir()
    key = home / ".ssh" / "id_ed25519"
    key.touch(mode=0o600)
    key.write_bytes(
        Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        )
    )
    key.with_suffix(".pub").write_text(ParsedPrivateKey.from_file(key).public_key())
    (home / "my_program.wasm").write_bytes(component("reply"))
    registry = home / "registry"
    registry.mkdir()
    (registry / "text-completion.wasm").write_bytes(component("reply"))
    (registry / "long-task.wasm").write_bytes(component("return_value"))
    return home


@contextmanager
def server(home: Path, *options: str) -> Iterator[str]:
    """A server in another process; gives its URL."""
    command = [sys.executable, "-m", "pie_anyio.server", "--registry", str(home / "registry")]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().split()[-1]
        process.terminate()


@pytest.fixture(scope="module")
def open_server(home: Path) -> Iterator[str]:
    with server(home) as url:
        yield url


@pytest.fixture(scope="module")
def closed_server(home: Path) -> Iterator[str]:
    with server(home, "--authorized-keys", f"ada={home / '.ssh' / 'id_ed25519.pub'}") as url:
        yield url


def run(sample: str, backend: str, url: str, home: Path) -> str:
    """Run a sample in the reader's home, as a program of its own; what it prints."""
    code = on(backend, sample).replace(ADDRESS, url)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=home,
        env={**os.environ, "HOME": str(home)},
        stdout=subprocess.PIPE,
        text=True,
        timeout=30,
        check=True,
    )
    return done.stdout


def on(backend: str, sample: str) -> str:
    """The sample with only its runner changed."""
    if backend == "asyncio":
        return sample
    changed = sample.replace("import asyncio", "import trio")
    return changed.replace("asyncio.run(main())", "trio.run(main)")


def test_every_sample_is_run_here() -> None:
    assert SAMPLES.keys() == OPEN_SERVER.keys() | CLOSED_SERVER.keys()
    assert README.read_text(encoding="utf-8").count("```python") == len(SAMPLES)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("name", OPEN_SERVER)
def test_a_sample_runs_against_an_open_server(
    name: str, backend: str, open_server: str, home: Path
) -> None:
    assert run(SAMPLES[name], backend, open_server, home) == OPEN_SERVER[name]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("name", CLOSED_SERVER)
def test_a_sample_runs_against_a_server_that_wants_a_key(
    name: str, backend: str, closed_server: str, home: Path
) -> None:
    assert run(SAMPLES[name], backend, closed_server, home) == CLOSED_SERVER[name]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_error_sample_tells_that_nothing_is_listening(backend: str, home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"ws://127.0.0.1:{taken.getsockname()[1]}"
    printed = run(SAMPLES["errors"], backend, url, home)
    assert printed.startswith(f"No connection: no connection to {url}")
