"""Blobs received into files, natively to trio."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from pie_proto import hash_of
from pie_trio_adapter import Event, TrioPieClient
from tests.trio_adapter.world import connected, in_trio, launch

BLOB = bytes(range(256)) * 5000


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def there_and_back(client: TrioPieClient, folder: Path) -> None:
    instance = await launch(client, "blob_back")
    instance.save_blobs(folder)
    await instance.upload_blob(BLOB)
    assert await instance.receive() == (Event.Blob, str(folder / hash_of(BLOB)))
    assert await trio.Path(folder / hash_of(BLOB)).read_bytes() == BLOB


@in_trio
async def test_a_blob_is_saved_under_its_hash(url: str, tmp_path: Path) -> None:
    async with connected(url) as client:
        await there_and_back(client, tmp_path)
        with pytest.raises(NotADirectoryError):
            (await launch(client, "blob_back")).save_blobs(tmp_path / "nowhere")


@pytest.mark.parametrize("step", range(0, 30, 5))
@in_trio
async def test_a_receive_that_is_cancelled_while_it_saves_loses_nothing(
    step: int, url: str, tmp_path: Path
) -> None:
    async with connected(url) as client:
        instance = await launch(client, "blob_back")
        instance.save_blobs(tmp_path)
        await instance.upload_blob(BLOB)
        got: list[object] = []

        async def read() -> None:
            got.append(await instance.receive())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            for _ in range(step):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        if not got:
            await read()
        assert got == [(Event.Blob, str(tmp_path / hash_of(BLOB)))]
    assert await trio.Path(tmp_path / hash_of(BLOB)).read_bytes() == BLOB


@in_trio
async def test_what_never_becomes_whole_is_removed(url: str, tmp_path: Path) -> None:
    async with connected(url) as client:
        instance = await launch(client, "blob_back")
        instance.save_blobs(tmp_path)

        async def stop_when_begun(scope: trio.CancelScope) -> None:
            while not names(tmp_path):
                await trio.lowlevel.checkpoint()
            scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(instance.upload_blob, BLOB * 4)
            with trio.CancelScope() as scope:
                nursery.start_soon(stop_when_begun, scope)
                await instance.receive()
            await instance.aclose()
            nursery.cancel_scope.cancel()
        assert names(tmp_path) == []
