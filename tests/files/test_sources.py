"""Files are read to their end whatever their reported size, and are closed by their last user."""

from __future__ import annotations

import errno
import gc
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pie_files import SourceChanged, sources
from pie_files.sources import Content
from pie_proto import LocalProtocolError, UploadFailed, hash_of
from pie_proto.commands import UploadBlob, UploadProgram
from pie_proto.families import FAMILIES

SOON = 30
"""How long anything that must happen may take, in seconds."""

PROGRAM = UploadProgram(size=0, hash="", manifest="of the caller")
LINES = bytes(range(256)) * 5000
SERVER = FAMILIES["process"].capabilities


def content_of(what: Any, **options: Any) -> Content:
    return Content(what, PROGRAM, **options)


def pieces_of(content: Content, size: int = 300_000) -> list[bytes]:
    return [
        bytes(content.read(start, min(size, content.size - start)))
        for start in range(0, content.size, size)
    ]


@pytest.mark.parametrize("data", [b"", b"short", LINES])
def test_a_file_and_its_bytes_are_the_same_content(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "content"
    path.write_bytes(data)
    for what in (path, str(path), data, bytearray(data), memoryview(data)):
        with content_of(what) as content:
            content.prepare()
            assert (content.size, content.hash) == (len(data), hash_of(data))
            assert b"".join(pieces_of(content)) == data
            assert content.command == replace(PROGRAM, size=len(data), hash=hash_of(data))


def test_the_command_says_what_is_done_with_the_content() -> None:
    announced = UploadBlob(instance_id="an instance", size=0, hash="")
    with Content(b"four", announced) as content:
        content.prepare()
        expected = UploadBlob(instance_id="an instance", size=4, hash=hash_of(b"four"))
        assert content.command == expected
        assert content.command.data == b"four"


@pytest.mark.parametrize("name", ["/proc/version", "/proc/filesystems", "/sys/kernel/profiling"])
def test_a_file_is_read_to_its_end_whatever_size_the_system_reports(name: str) -> None:
    path = Path(name)
    if not path.is_file() or path.stat().st_size == len(path.read_bytes()):
        pytest.skip("there is no such file on this system")
    with content_of(path) as content:
        content.prepare()
        assert content.size == len(path.read_bytes())
        assert b"".join(pieces_of(content)) == path.read_bytes()


def test_content_that_is_another_each_time_it_is_read_is_found_changed() -> None:
    path = Path("/proc/sys/kernel/random/uuid")
    if not path.is_file():
        pytest.skip("there is no such file on this system")
    with content_of(path) as content:
        content.prepare()
        assert content.size == 37
        with pytest.raises(SourceChanged, match="uuid was changed"):
            pieces_of(content)


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


CHANGES: dict[str, Callable[[Path], object]] = {
    "grows": grow,
    "shrinks": lambda path: os.truncate(path, 1000),
    "is emptied": lambda path: os.truncate(path, 0),
    "is written to": lambda path: path.write_bytes(LINES[::-1]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changes_once_it_was_hashed_is_found_changed(
    tmp_path: Path, change: str
) -> None:
    path = tmp_path / "changing.bin"
    path.write_bytes(LINES)
    os.utime(path, (0, 0))
    with content_of(path) as content:
        content.prepare()
        assert len(content.read(0, 300_000)) == 300_000
        CHANGES[change](path)
        with pytest.raises(SourceChanged, match=r"changing\.bin (has become shorter|was changed)"):
            content.read(300_000, 300_000)


def test_a_file_that_changes_while_it_is_hashed_is_found_changed(tmp_path: Path) -> None:
    path = tmp_path / "changing.bin"
    path.write_bytes(bytes(1000))
    stop = threading.Event()

    def keep_writing() -> None:
        with path.open("ab", buffering=0) as file:
            while not stop.is_set() and file.tell() < 200_000_000:
                file.write(bytes(100_000))

    writer = threading.Thread(target=keep_writing)
    writer.start()
    try:
        with pytest.raises(SourceChanged, match=r"changing\.bin was"):
            while True:  # until a change falls into the time of hashing
                with content_of(path) as content:
                    content.prepare()
    finally:
        stop.set()
        writer.join()


def test_content_that_changed_while_size_and_time_did_not_is_found_changed(tmp_path: Path) -> None:
    path = tmp_path / "changing.bin"
    path.write_bytes(LINES)
    os.utime(path, (0, 0))
    with content_of(path) as content:
        content.prepare()
        path.write_bytes(LINES[::-1])
        os.utime(path, (0, 0))
        with pytest.raises(SourceChanged, match=r"changing\.bin was changed"):
            pieces_of(content)


def test_a_changed_file_fails_the_upload_with_the_command(tmp_path: Path) -> None:
    with content_of(tmp_path / "changing.bin") as content:
        error = content.changed(SourceChanged("it changed"))
    assert isinstance(error, UploadFailed)
    assert str(error) == "the upload was stopped: it changed"
    assert error.reason == "it changed"
    assert error.command == PROGRAM


def test_more_than_the_server_takes_is_rejected_before_it_is_hashed(tmp_path: Path) -> None:
    path = tmp_path / "large.bin"
    path.touch()
    os.truncate(path, SERVER.upload_bytes + 1)
    text = "UploadProgram has 268435457 bytes; the server takes 268435456"
    with content_of(path, server=SERVER) as content:
        with pytest.raises(LocalProtocolError, match=text):
            content.prepare()
        assert content.hash == ""
    few = replace(SERVER, upload_bytes=10)
    with content_of(bytes(11), server=few) as content:
        with pytest.raises(LocalProtocolError, match="has 11 bytes; the server takes 10"):
            content.prepare()
    with content_of(bytes(10), server=few) as content:
        content.prepare()


def test_a_file_without_a_size_is_not_read_past_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path("/proc/version")
    if not path.is_file() or path.stat().st_size:
        pytest.skip("there is no such file on this system")
    size = len(path.read_bytes())
    monkeypatch.setattr(sources, "UNREPORTED_BYTES", size - 1)
    with content_of(path) as content, pytest.raises(LocalProtocolError, match="may have no end"):
        content.prepare()
    monkeypatch.setattr(sources, "UNREPORTED_BYTES", size)
    with content_of(path) as content:
        content.prepare()
    few = replace(SERVER, upload_bytes=size - 1)
    with content_of(path, server=few) as content:
        with pytest.raises(LocalProtocolError, match=f"has {size} bytes; the server takes"):
            content.prepare()


def test_what_is_no_regular_file_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path(os.devnull), Path("/dev/zero")):
        with content_of(path) as content:
            with pytest.raises(OSError, match="not a regular file, so it cannot be read twice"):
                content.prepare()
    for path, code in ((tmp_path, errno.EISDIR), (tmp_path / "missing", errno.ENOENT)):
        with content_of(path) as content, pytest.raises(OSError, match=path.name) as caught:
            content.prepare()
        assert caught.value.errno == code


def test_a_pipe_that_takes_the_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    # It blocks until somebody opens the pipe to write, unless it is told not to.
    os.close(sources._opened(str(tmp_path / "pipe"), os.O_RDONLY))


class BytesPath:
    """A path that is bytes."""

    def __fspath__(self) -> bytes:
        return b"path"


@pytest.mark.parametrize("path", ["with\0null", "\ud800", BytesPath()])
def test_what_can_be_no_path_is_rejected(path: Any) -> None:
    with content_of(path) as content, pytest.raises(LocalProtocolError, match="path of a file"):
        content.prepare()


class SlowPath(os.PathLike[str]):
    """The path of a file on a drive that does not answer at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.asked = threading.Event()
        self.answered = threading.Event()

    def __fspath__(self) -> str:
        self.asked.set()
        assert self.answered.wait(SOON)
        return str(self.path)


def closed_while_preparing(content: Content) -> None:
    with suppress(OSError):
        content.prepare()


def test_a_file_that_is_closed_before_it_is_open_is_closed_by_the_thread_that_opens_it(
    tmp_path: Path,
) -> None:
    path = SlowPath(tmp_path / "content")
    path.path.write_bytes(LINES)
    content = content_of(path)
    thread = threading.Thread(target=closed_while_preparing, args=(content,))
    thread.start()
    assert path.asked.wait(SOON)
    content.close()
    path.answered.set()
    thread.join(SOON)
    assert not thread.is_alive()
    # If it were still open, this would be a ResourceWarning.
    del content, thread
    gc.collect()


@pytest.mark.parametrize("kind", ["file", "bytes"])
def test_hashing_stops_when_the_content_is_closed(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "large.bin"
    path.touch()
    os.truncate(path, 8 << 30)
    content = content_of(path if kind == "file" else bytes(400_000_000))
    thread = threading.Thread(target=closed_while_preparing, args=(content,))
    thread.start()
    content.close()
    thread.join(SOON)
    assert not thread.is_alive()
    assert content.hash == ""
