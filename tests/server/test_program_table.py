"""The programs that both kinds of server run: as components, on the embedded one."""

from __future__ import annotations

import ast
import tomllib

import pytest

from pie_anyio.server import Server
from pie_proto import BlobUploaded, Event, UploadBlob, hash_of
from tests.programs.table import PROGRAMS
from tests.server.server_peer import Peer, client

NAMES = sorted(PROGRAMS)
BOTH = ["arguments", "conversation", "echo", "error", "files", "flood", "give_back"]
BOTH += ["hello", "loop", "return_value", "sleep"]


@pytest.mark.parametrize("name", NAMES)
def test_a_manifest_names_the_program_and_its_function(name: str) -> None:
    program = PROGRAMS[name]
    manifest = tomllib.loads(program.manifest())
    assert "{name}@{version}".format(**manifest["package"]) == program.identifier
    assert manifest["runtime"]["entry"] == name
    functions = [
        node.name
        for node in ast.parse(program.source()).body
        if isinstance(node, ast.AsyncFunctionDef)
    ]
    assert name in functions


def test_most_programs_are_there_as_both() -> None:
    assert [name for name in NAMES if PROGRAMS[name].is_component] == BOTH
    for name in BOTH:
        assert PROGRAMS[name].component().startswith(b"\0asm")


@pytest.mark.anyio
@pytest.mark.usefixtures("tidy")
async def test_files_says_when_it_waits(server: Server) -> None:
    async with client(server) as peer:
        instance_id = await peer.launch("files")
        for content in (b"one", b"two" * 100_000):
            assert await peer.read(instance_id) == (Event.Message, "ready")
            await send(peer, instance_id, content)
            assert await peer.read(instance_id) == (Event.Blob, content)
        assert await peer.read(instance_id) == (Event.Message, "ready")
        await send(peer, instance_id, b"")
        assert await peer.read(instance_id) == (Event.Completed, "an empty blob came")


@pytest.mark.anyio
@pytest.mark.usefixtures("tidy")
async def test_flood_takes_its_count_as_an_option(server: Server) -> None:
    async with client(server) as peer:
        *events, end = await peer.read_to_end(await peer.launch("flood", "--count", "3"))
        assert end == (Event.Completed, "flooded")
        text = "".join(str(data) for _, data in events)
        assert [line[:16] for line in text.splitlines()] == [f"{number:016}" for number in range(3)]


async def send(peer: Peer, instance_id: str, content: bytes) -> None:
    upload = UploadBlob(
        instance_id=instance_id, size=len(content), hash=hash_of(content), data=content
    )
    assert isinstance(await peer.ask(upload), BlobUploaded)
