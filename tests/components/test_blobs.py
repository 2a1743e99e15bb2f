"""Blobs of every size, to a program and from it, by the client and the embedded server."""

from __future__ import annotations

import random
from collections.abc import Iterator

import anyio
import pytest

from pie_anyio import Event, PieClient
from pie_anyio.server import RunnerLimits
from pie_proto import hash_of
from tests.anyio.world import launch, read_until
from tests.peers.server_process import server_process

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

KIB = 1024
MIB = 1024 * KIB
CHUNK = 256 * KIB

SECONDS = 50


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server in a process of its own."""
    with server_process() as url:
        yield url


@pytest.mark.parametrize("size", [1, CHUNK - 1, CHUNK, CHUNK + 1, int(1.9 * MIB)])
async def test_a_blob_that_a_program_made_comes_whole(size: int, url: str) -> None:
    with anyio.fail_after(SECONDS):
        async with PieClient(url) as client:
            await there_and_back(client, "echo_blob", size)


@pytest.mark.parametrize("size", [1, CHUNK - 1, CHUNK, CHUNK + 1, int(1.9 * MIB), 64 * MIB])
async def test_a_blob_that_a_program_hands_back_comes_whole(size: int, url: str) -> None:
    with anyio.fail_after(SECONDS):
        async with PieClient(url) as client:
            await there_and_back(client, "blob_back", size)


async def there_and_back(client: PieClient, program: str, size: int) -> None:
    """A blob goes to a program, is given back, and has the hash that it had."""
    blob = random.Random(size).randbytes(size)
    expected = hash_of(blob)
    await client.authenticate("ada")
    instance = await launch(client, program)
    await instance.upload_blob(blob)
    before, back = await read_until(instance, Event.Blob)
    assert before == []
    assert len(back) == size
    assert hash_of(back) == expected
    await instance.upload_blob(b"")
    assert await instance.result() == "an empty blob came"


@pytest.mark.parametrize("excess", [1, MIB])
async def test_a_blob_that_a_program_makes_over_the_limit_of_a_call_ends_it_by_name(
    excess: int, url: str
) -> None:
    """Beyond our limit, and beyond wasmtime's own behind it."""
    limit = RunnerLimits().call_bytes
    with anyio.fail_after(SECONDS):
        async with PieClient(url) as client:
            await client.authenticate("ada")
            instance = await launch(client, "echo_blob")
            await instance.upload_blob(bytes(limit))
            _, back = await read_until(instance, Event.Blob)
            assert len(back) == limit
            await instance.upload_blob(bytes(limit + excess))
            event, reason = await instance.recv()
            assert event is Event.Exception
            assert reason.endswith("(limit call_bytes)")
