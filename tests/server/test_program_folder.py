"""Uploaded programs that outlive the server, in a folder."""

# ruff: noqa: ASYNC240 - what a test looks at in its own folder does not make it wait

from __future__ import annotations

import os
import threading
from pathlib import Path

import anyio
import pytest

from pie_anyio.server import serve
from pie_anyio.server.program_folder import ProgramFolder
from pie_anyio.server.runner import Program, Runner
from pie_anyio.server.store import NotFound, ProgramStore
from pie_proto import (
    Event,
    Launched,
    LaunchInstance,
    ProgramExists,
    ProgramExistsAnswered,
    ProgramUploaded,
    hash_of,
)
from tests.programs import component, text
from tests.server.server_peer import SECONDS, Peer, client

pytestmark = [pytest.mark.anyio]

HELLO = component("hello")
HASH = hash_of(HELLO)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "kept" / "programs"


async def exists(peer: Peer, content_hash: str) -> bool:
    answer = await peer.ask(ProgramExists(content_hash))
    assert isinstance(answer, ProgramExistsAnswered), answer
    return answer.exists


async def end_of(peer: Peer, content_hash: str) -> tuple[Event, str | bytes]:
    launched = await peer.ask(LaunchInstance(hash=content_hash))
    assert isinstance(launched, Launched), launched
    return (await peer.read_to_end(launched.instance_id))[-1]


# ------------------------------------------------------------------------------------ over the wire


@pytest.mark.usefixtures("tidy")
@pytest.mark.parametrize("data", [HELLO, text("hello").encode()], ids=["binary", "text"])
async def test_what_was_uploaded_to_one_server_is_launched_on_the_next(
    folder: Path, data: bytes
) -> None:
    content_hash = hash_of(data)
    async with serve(programs=folder) as server, client(server) as peer:
        assert not await exists(peer, content_hash)
        assert isinstance(await peer.upload(data), ProgramUploaded)
    assert [path.name for path in folder.iterdir()] == [f"{content_hash}.wasm"]
    assert (folder / f"{content_hash}.wasm").read_bytes() == data
    async with serve(programs=folder) as server, client(server) as peer:
        # Nothing is compiled before it is asked for.
        assert await exists(peer, content_hash)
        assert await peer.statistic("programs") == 0
        assert await end_of(peer, content_hash) == (Event.Completed, "done")
        assert await peer.statistic("programs") == 1


@pytest.mark.usefixtures("tidy")
async def test_without_a_folder_the_next_server_knows_nothing(folder: Path) -> None:
    async with serve() as server, client(server) as peer:
        await peer.upload(HELLO)
    async with serve() as server, client(server) as peer:
        assert not await exists(peer, HASH)
    assert not folder.exists()


@pytest.mark.usefixtures("tidy")
async def test_only_what_compiles_is_kept(folder: Path) -> None:
    async with serve(programs=folder) as server, client(server) as peer:
        data = b"(component)"
        assert not isinstance(await peer.upload(data), ProgramUploaded)
        assert not await exists(peer, hash_of(data))
    assert list(folder.iterdir()) == []


async def test_a_file_that_does_not_fit_its_name_is_no_program(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.mkdir(parents=True)
    path = folder / f"{HASH}.wasm"
    path.write_bytes(HELLO[:-1])
    async with serve(programs=folder) as server, client(server) as peer:
        assert not await exists(peer, HASH)
        assert "Program not found" in await peer.refusal(LaunchInstance(hash=HASH))
        lines = [record.getMessage() for record in caplog.records]
        assert len(lines) == 2
        assert all(f"{path} is no program that was kept" in line for line in lines)
        # And an upload puts it right, also when the program is in memory by then.
        for _ in range(2):
            assert isinstance(await peer.upload(HELLO), ProgramUploaded)
            assert path.read_bytes() == HELLO
            path.write_bytes(b"broken")


@pytest.mark.usefixtures("tidy")
async def test_a_file_that_fits_its_name_but_does_not_run_here_is_refused_in_words(
    folder: Path,
) -> None:
    folder.mkdir(parents=True)
    data = b"(component)"
    (folder / f"{hash_of(data)}.wasm").write_bytes(data)
    async with serve(programs=folder) as server, client(server) as peer:
        reason = await peer.refusal(LaunchInstance(hash=hash_of(data)))
        assert "does not export 'inferlet:core/run'" in reason


@pytest.mark.usefixtures("tidy")
async def test_what_a_client_calls_a_hash_leads_nowhere_else(folder: Path) -> None:
    (folder.parent).mkdir()
    (folder.parent / "secret.wasm").write_bytes(HELLO)
    async with serve(programs=folder) as server, client(server) as peer:
        await peer.upload(HELLO)
        for name in ("../secret", HASH[:-1], f"./{HASH}", f"{HASH}\n", "\0", ""):
            assert not await exists(peer, name)
            assert "Program not found" in await peer.refusal(LaunchInstance(hash=name))


async def test_a_folder_that_cannot_be_made_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="programs"):
        async with serve(programs=tmp_path / "file" / "programs"):
            pytest.fail("it serves")


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(ValueError, match=r"the programs folder .* is not a folder"):
        serve(programs=path)


@pytest.mark.usefixtures("tidy")
async def test_a_program_that_cannot_be_kept_is_not_taken(folder: Path) -> None:
    async with serve(programs=folder) as server, client(server) as peer:
        folder.rmdir()
        reason = (await peer.refusal_of_upload(HELLO)).replace("\\", "/")
        assert str(folder.name) in reason
        assert not await exists(peer, HASH)
        folder.mkdir()
        assert isinstance(await peer.upload(HELLO), ProgramUploaded)
        assert await exists(peer, HASH)


# ---------------------------------------------------------------------------------------- the store


@pytest.fixture
def loop_thread() -> int:
    return threading.get_ident()


class WatchedFolder(ProgramFolder):
    """One that knows which threads it was used in."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.threads: set[int] = set()

    def load(self, content_hash: str) -> bytes | None:
        self.threads.add(threading.get_ident())
        return super().load(content_hash)

    def keep(self, content_hash: str, data: bytes) -> None:
        self.threads.add(threading.get_ident())
        super().keep(content_hash, data)


async def test_files_are_read_written_and_hashed_in_other_threads(
    tmp_path: Path, loop_thread: int
) -> None:
    folder = WatchedFolder(tmp_path)
    store = ProgramStore(Runner(cache=False).compile, folder)
    await store.upload(HASH, HELLO)
    other = ProgramStore(Runner(cache=False).compile, folder)
    assert await other.exists(HASH)
    await other.get(HASH)
    assert folder.threads
    assert loop_thread not in folder.threads


async def test_a_kept_program_is_compiled_once_for_all_who_want_it(tmp_path: Path) -> None:
    folder = ProgramFolder(tmp_path)
    folder.keep(HASH, HELLO)
    runner = Runner(cache=False)
    compiled: list[bytes | str] = []

    def compile_program(data: bytes | str) -> Program:
        compiled.append(data)
        return runner.compile(data)

    store = ProgramStore(compile_program, folder)
    found: list[Program] = []

    async def get() -> None:
        found.append(await store.get(HASH))

    with anyio.fail_after(SECONDS):
        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(get)
    assert compiled == [HELLO]
    assert len(set(found)) == 1
    with pytest.raises(NotFound, match=f"Program not found: {'0' * 64}"):
        await store.get("0" * 64)


def test_no_part_of_a_program_is_seen_under_its_name(tmp_path: Path) -> None:
    folder = ProgramFolder(tmp_path)
    # Where a file cannot take the name, what was written does not stay either.
    (tmp_path / f"{HASH}.wasm").mkdir()
    (tmp_path / f"{HASH}.wasm" / "full").touch()
    with pytest.raises(OSError, match=HASH):
        folder.keep(HASH, HELLO)
    assert [path.name for path in tmp_path.iterdir()] == [f"{HASH}.wasm"]


def test_many_may_keep_the_same_program_at_a_time(tmp_path: Path) -> None:
    data = os.urandom(1 << 20)
    content_hash = hash_of(data)
    folders = [ProgramFolder(tmp_path) for _ in range(8)]
    seen: list[bytes | None] = []

    def keep(folder: ProgramFolder) -> None:
        for _ in range(5):
            folder.keep(content_hash, data)
            seen.append(folder.load(content_hash))

    threads = [threading.Thread(target=keep, args=(folder,)) for folder in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert seen == [data] * 40
    assert [path.name for path in tmp_path.iterdir()] == [f"{content_hash}.wasm"]
