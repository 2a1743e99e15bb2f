"""Programs built from source by other people's toolchains run on the embedded server."""

from __future__ import annotations

import anyio
import pytest

from pie_anyio import Event, Instance, PieClient
from pie_proto import hash_of
from tests.anyio.world import text_of
from tests.peers.server_process import server_process

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

BLOB = bytes(i % 251 for i in range(int(1.9 * 1024 * 1024)))

COMPILE_SECONDS = 180
"""For 18 MB of WebAssembly, on a busy machine; cached afterwards."""

SECONDS = 30


@pytest.mark.timeout(600)
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_program_in_python_converses_fails_and_raises(python_program: bytes) -> None:
    await converse_fail_and_trap(python_program, "LookupError")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_program_in_c_converses_fails_and_aborts(c_program: bytes) -> None:
    await converse_fail_and_trap(c_program, "ready")


async def converse_fail_and_trap(program: bytes, last_words: str) -> None:
    """What both programs do: see their sources."""
    with server_process() as url:
        async with PieClient(url) as client:
            await client.authenticate("ada")
            with anyio.fail_after(COMPILE_SECONDS):
                program_hash = await client.upload_program(program)
            with anyio.fail_after(SECONDS):
                instance = await client.launch_instance(program_hash, ["one", "zwei €"])
                await converse(instance)

                instance = await client.launch_instance(program_hash)
                await instance.send("fail")
                assert (await to_end(instance))[-1] == (Event.Exception, "told to fail: ünlucky")

                instance = await client.launch_instance(program_hash)
                await instance.send("raise")
                events = await to_end(instance)
                assert events[-1] == (
                    Event.Exception,
                    "wasm trap: wasm `unreachable` instruction executed",
                )
                assert last_words in text_of(events, Event.Stderr)


async def converse(instance: Instance) -> None:
    """Arguments, stdout and stderr, a message each way, a blob each way, a return value."""
    await instance.send("grüß dich")
    await instance.upload_blob(BLOB)
    events = await to_end(instance)
    assert text_of(events, Event.Stdout) == "arguments: one zwei €\n"
    assert text_of(events, Event.Stderr) == "ready\n"
    said = [pair for pair in events if pair[0] not in {Event.Stdout, Event.Stderr}]
    assert [event for event, _ in said] == [Event.Message, Event.Blob, Event.Completed]
    assert said[0][1] == "echo: grüß dich"
    assert hash_of(said[1][1]) == hash_of(bytes(reversed(BLOB)))
    assert said[2][1] == f"{len(BLOB)} bytes"


async def to_end(instance: Instance) -> list[tuple[Event, str | bytes]]:
    """All events of an instance."""
    return [pair async for pair in instance]
