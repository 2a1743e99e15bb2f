"""Files are uploaded as they are read, to their end, or not at all."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import anyio
import pytest

from pie_anyio import LocalProtocolError, UploadFailed
from pie_anyio.server import serve
from pie_proto import hash_of
from tests.families.world import IDENTITY, SOON, client_of
from tests.programs import component

pytestmark = pytest.mark.anyio

VERSION = Path("/proc/version")
"""A file of which the system reports no size."""

UUID = Path("/proc/sys/kernel/random/uuid")
"""A file that has other content each time it is read."""


def _read(path: Path) -> bytes:
    if not path.is_file() or path.stat().st_size:
        pytest.skip("there is no such file on this system")
    return path.read_bytes()


@pytest.mark.parametrize("what", ["program", "blob"])
async def test_a_file_of_which_the_system_reports_no_size_is_uploaded_to_its_end(
    driver: str, what: str
) -> None:
    content = _read(VERSION)
    with anyio.fail_after(SOON):
        async with serve() as server, client_of(driver, server.url) as client:
            await client.authenticate("ada")
            if what == "program":
                with pytest.raises(UploadFailed, match="not a WebAssembly component") as caught:
                    await client.upload_program(VERSION)
                assert caught.value.command.hash == hash_of(content)
                return
            program_hash = await client.upload_program(component("blob_back"))
            instance = await client.launch_instance(program_hash)
            await instance.upload_blob(VERSION)
            _, back = await instance.recv()
            assert back == content


@pytest.mark.parametrize("what", ["program", "blob"])
async def test_content_that_cannot_be_read_twice_fails_the_upload_alone(
    driver: str, what: str
) -> None:
    _read(UUID)
    with anyio.fail_after(SOON):
        async with serve() as server, client_of(driver, server.url) as client:
            await client.authenticate("ada")
            program_hash = await client.upload_program(component("blob_back"))
            instance = await client.launch_instance(program_hash)
            upload = client.upload_program if what == "program" else instance.upload_blob
            with pytest.raises(UploadFailed, match="uuid was changed") as caught:
                await upload(UUID)
            assert isinstance(caught.value.__cause__, OSError)
            await upload(component("hello"))


@pytest.mark.parametrize("what", ["program", "blob"])
async def test_a_file_that_changes_while_it_is_hashed_fails_the_upload(
    driver: str, tmp_path: Path, what: str
) -> None:
    path = tmp_path / "growing.bin"
    path.touch()
    os.truncate(path, 1 << 30)
    stop = threading.Event()

    def keep_growing() -> None:
        size = 1 << 30
        while not stop.wait(0.01):
            size += 1
            os.truncate(path, size)

    writer = threading.Thread(target=keep_growing)
    with anyio.fail_after(SOON):
        async with serve() as server, client_of(driver, server.url) as client:
            await client.authenticate("ada")
            program_hash = await client.upload_program(component("blob_back"))
            instance = await client.launch_instance(program_hash)
            upload = client.upload_program if what == "program" else instance.upload_blob
            writer.start()
            try:
                with pytest.raises(UploadFailed, match=r"growing\.bin was changed") as caught:
                    await upload(path)
            finally:
                stop.set()
                writer.join()
            assert isinstance(caught.value.__cause__, OSError)
            assert type(caught.value.command).__name__.lower() == f"upload{what}"
            await client.ping()


async def test_a_file_over_the_servers_limit_is_rejected_at_once(
    driver: str, tmp_path: Path
) -> None:
    path = tmp_path / "large.bin"
    path.touch()
    os.truncate(path, 1 << 40)
    with anyio.fail_after(SOON):
        async with serve(dialect="process") as server:
            async with client_of(driver, server.url, identity=IDENTITY) as client:
                await client.authenticate("ada")
                with pytest.raises(
                    LocalProtocolError, match="has 1099511627776 bytes; the server takes"
                ):
                    await client.upload_program(path)
                await client.ping()
