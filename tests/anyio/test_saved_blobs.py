"""Blobs received into files, on asyncio and trio, and by the trio adapter."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from pathlib import Path

import anyio
import pytest

from pie_anyio import ConnectionLost, Event, Instance, Limits, LocalProtocolError, PieClient
from pie_proto import hash_of
from tests.anyio.world import World, connected, launch, read_until

pytestmark = pytest.mark.anyio

KIB = 1024
SIZES = [1, 256 * KIB - 1, 256 * KIB, 256 * KIB + 1, 3_000_000]


def content(size: int) -> bytes:
    return b"".join(n.to_bytes(4, "big") for n in range(size // 4 + 1))[:size]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def there_and_back(instance: Instance, folder: Path, blob: bytes) -> None:
    await instance.upload_blob(blob)
    event, path = await instance.recv()
    assert (event, path) == (Event.Blob, str(folder / hash_of(blob)))
    assert isinstance(path, str)
    assert await anyio.Path(path).read_bytes() == blob


async def test_blobs_are_saved_under_their_hash(world: World, tmp_path: Path) -> None:
    async with world() as (_, client):
        instance = await launch(client, "blob_back")
        instance.save_blobs(tmp_path)
        for size in SIZES:
            await there_and_back(instance, tmp_path, content(size))
    assert names(tmp_path) == sorted(hash_of(content(size)) for size in SIZES)


async def test_a_saved_blob_is_not_bounded_by_what_fits_in_memory(
    world: World, tmp_path: Path
) -> None:
    limits = Limits(
        blob_bytes=1_000_000,
        assembling_bytes=1_000_000,
        unread_bytes=1_000_000,
        unread_low_bytes=500_000,
    )
    blob = content(3_000_000)
    async with world(limits=limits) as (_, client):
        instance = await launch(client, "blob_back")
        instance.save_blobs(tmp_path)
        await there_and_back(instance, tmp_path, blob)
        await client.ping()


async def test_a_blob_that_had_come_before_is_saved_too(world: World, tmp_path: Path) -> None:
    blob = content(600_000)
    async with world() as (_, client):
        instance = await launch(client, "blob_back")
        await instance.upload_blob(blob)
        while client.statistics().unread_bytes < len(blob):
            await client.ping()
        instance.save_blobs(tmp_path)
        assert await instance.recv() == (Event.Blob, str(tmp_path / hash_of(blob)))
    assert (tmp_path / hash_of(blob)).read_bytes() == blob


async def test_saved_blobs_come_in_their_place_among_other_events(
    world: World, tmp_path: Path
) -> None:
    async with world() as (_, client):
        for read in (iterated, received, polled):
            instance = await launch(client, "conversation")
            instance.save_blobs(tmp_path)
            await instance.send("How do you do?")
            await instance.upload_blob(b"a blob")
            events = [pair for pair in await read(instance) if pair[0] not in PRINTED]
            assert [event.name for event, _ in events] == [
                "Message",
                "Message",
                "Blob",
                "Completed",
            ]
            assert events[2][1] == str(tmp_path / hash_of(b"a blob"))


PRINTED = {Event.Stdout, Event.Stderr}


async def iterated(instance: Instance) -> list[tuple[Event, str | bytes]]:
    return [pair async for pair in instance]


async def received(instance: Instance) -> list[tuple[Event, str | bytes]]:
    events = [await instance.recv()]
    while not events[-1][0].is_terminal:
        events.append(await instance.recv())
    return events


async def polled(instance: Instance) -> list[tuple[Event, str | bytes]]:
    events: list[tuple[Event, str | bytes]] = []
    while not events or not events[-1][0].is_terminal:
        try:
            events.append(instance.recv_nowait())
        except anyio.WouldBlock:
            events.append(await instance.recv())
    return events


async def test_a_blob_that_never_becomes_whole_leaves_no_file(world: World, tmp_path: Path) -> None:
    limits = Limits(unread_bytes=300_000, unread_low_bytes=1)
    async with world(limits=limits) as (server, _):
        for end in (leave, discard, lose):
            async with connected(server, limits=limits) as other:
                instance = await launch(other, "blob_back")
                instance.save_blobs(tmp_path)
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(partial(upload, instance, content(2_000_000)))
                    # Reading on until the first piece is there, and no further.
                    with anyio.CancelScope() as scope:
                        tasks.start_soon(cancel_when_begun, tmp_path, scope)
                        await instance.recv()
                    await end(instance, other)
                    tasks.cancel_scope.cancel()
            assert names(tmp_path) == []


async def upload(instance: Instance, blob: bytes) -> None:
    with suppress(ConnectionLost):
        await instance.upload_blob(blob)


async def cancel_when_begun(folder: Path, scope: anyio.CancelScope) -> None:
    while not names(folder):
        await anyio.lowlevel.checkpoint()
    scope.cancel()


async def leave(instance: Instance, _: PieClient) -> None:
    async with instance:
        pass


async def discard(instance: Instance, _: PieClient) -> None:
    instance.discard()
    with pytest.raises(LocalProtocolError, match="discarded"):
        await instance.recv()


async def lose(instance: Instance, client: PieClient) -> None:
    await client.aclose()
    with pytest.raises(ConnectionLost):
        while True:
            await instance.recv()


@pytest.mark.parametrize("step", [0, 3, 8, 15, 30])
async def test_a_recv_that_is_cancelled_while_it_saves_loses_nothing(
    step: int, world: World, tmp_path: Path
) -> None:
    blob = content(2_000_000)
    async with world() as (_, client):
        instance = await launch(client, "blob_back")
        instance.save_blobs(tmp_path)
        await instance.upload_blob(blob)
        async with anyio.create_task_group() as tasks:
            got: list[tuple[Event, str | bytes]] = []

            async def read() -> None:
                got.append(await instance.recv())

            tasks.start_soon(read)
            for _ in range(step):
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        if not got:
            got.append(await instance.recv())
        assert got == [(Event.Blob, str(tmp_path / hash_of(blob)))]
    assert (tmp_path / hash_of(blob)).read_bytes() == blob


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("step", [0, 3, 8, 15, 30])
async def test_a_task_that_is_cancelled_while_it_saves_loses_nothing(
    step: int, world: World, tmp_path: Path
) -> None:
    # asyncio's own cancellation heeds no shield, so it strikes while the thread is writing.
    blob = content(2_000_000)
    async with world() as (_, client):
        instance = await launch(client, "blob_back")
        instance.save_blobs(tmp_path)
        await instance.upload_blob(blob)
        task = asyncio.create_task(instance.recv())
        for _ in range(step):
            await anyio.lowlevel.checkpoint()
        task.cancel()
        await asyncio.wait([task])
        received = await instance.recv() if task.cancelled() else task.result()
        assert received == (Event.Blob, str(tmp_path / hash_of(blob)))
    assert (tmp_path / hash_of(blob)).read_bytes() == blob


async def test_what_the_disk_says_no_to_is_tried_again(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    async with world() as (_, client):
        instance = await launch(client, "blob_back")
        instance.save_blobs(folder)
        folder.rmdir()
        await instance.upload_blob(b"whole")
        for _ in range(2):
            with pytest.raises(FileNotFoundError):
                await instance.recv()
        folder.mkdir()
        assert await instance.recv() == (Event.Blob, str(folder / hash_of(b"whole")))
        await client.ping()


async def test_a_folder_to_save_in_must_be_there(world: World, tmp_path: Path) -> None:
    async with world() as (_, client):
        instance = await launch(client, "blob_back")
        with pytest.raises(NotADirectoryError, match="nowhere"):
            instance.save_blobs(tmp_path / "nowhere")
        await instance.upload_blob(b"in memory")
        assert (await read_until(instance, Event.Blob))[1] == b"in memory"
