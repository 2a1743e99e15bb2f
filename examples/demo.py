"""The main job, end to end: authenticate, upload, launch, talk, stream, detach, reattach.

Starts a Pie server of its own as another process, so that nothing else is needed::

    python examples/demo.py                  # on asyncio
    python examples/demo.py --backend trio
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import wasmtime
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from terminal import Progress, Screen, say, title

from pie_anyio import Event, ParsedPrivateKey, PieClient
from pie_proto import hash_of

HERE = Path(__file__).parent
PROGRAMS = HERE.parent / "tests" / "programs"
USER = "demo"

# Programs built with a language's toolchain are some megabytes. Ours is a page of text, so a custom
# section, which no one reads, makes it one of 3 MiB: twelve chunks on their way to the server.
PADDING = 3 * 1024 * 1024


def make_key(folder: Path) -> Path:
    """Make an SSH key pair, as ``ssh-keygen -t ed25519`` would; returns the private key's file."""
    private_key = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    path = folder / "id_ed25519"
    path.touch(mode=0o600)
    path.write_bytes(private_key)
    public_key = ParsedPrivateKey.from_file(path).public_key()
    path.with_suffix(".pub").write_text(public_key + "\n", encoding="utf-8")
    return path


def program() -> bytes:
    """The program that is uploaded, as a binary component of some size."""
    component = bytes(wasmtime.wat2wasm((PROGRAMS / "conversation.wat").read_text("utf-8")))
    section = bytes((7,)) + b"padding" + bytes(PADDING)
    return component + b"\x00" + leb128(len(section)) + section


def leb128(number: int) -> bytes:
    """The form in which WebAssembly writes a length."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


@contextmanager
def server_process(public_key: Path) -> Iterator[str]:
    """Run the embedded server as another process; gives its URL."""
    command = [
        sys.executable,
        "-m",
        "pie_anyio.server",
        "--authorized-keys",
        f"{USER}={public_key}",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if "ws://" not in line:
                raise SystemExit(f"the server did not start: {line!r}")
            yield line.split()[-1]
        finally:
            process.terminate()


async def main(url: str, key_file: Path) -> None:
    """Everything a client does."""
    title("A conversation")
    async with PieClient(url) as client:
        await client.authenticate(USER, ParsedPrivateKey.from_file(key_file))
        say("authenticated", f"as {USER}, with {key_file.name}")

        with Progress("uploading") as progress:
            program_hash = await client.upload_program(program(), progress=progress)
        say("uploaded", program_hash)
        assert await client.program_exists(program_hash)

        async with await client.launch_instance(program_hash, ["--name", "Ada"]) as instance:
            say("launched", instance.id)
            blob = bytes(range(256)) * 2400
            screen = Screen()
            async for event, data in instance:
                screen.show(event, data)
                if event is Event.Message and data == "ready":
                    await instance.send("How do you do?")
                    await instance.upload_blob(blob)
                if event is Event.Blob:
                    assert isinstance(data, bytes)
                    matches = hash_of(data) == hash_of(blob)
                    say("blob checked", "its hash matches" if matches else "ITS HASH DIFFERS")
                    assert matches

        title("An instance that outlives its connection")
        instance = await client.launch_instance(
            await client.upload_program(PROGRAMS.joinpath("arguments.wat").read_bytes()),
            ["left", "running", "on its own"],
            detached=True,
        )
        say("launched", f"{instance.id}, detached")
    say("closed", "the connection is gone, the instance is not")

    reattach = [sys.executable, str(HERE / "reattach.py"), url, USER, str(key_file), instance.id]
    await anyio.run_process(reattach, stdout=None, stderr=None)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", choices=("asyncio", "trio"), default="asyncio")
    backend = parser.parse_args().backend
    with tempfile.TemporaryDirectory() as folder:
        key = make_key(Path(folder))
        with server_process(key.with_suffix(".pub")) as server_url:
            say("server", f"{server_url}, this client on {backend}")
            anyio.run(main, server_url, key, backend=backend)
