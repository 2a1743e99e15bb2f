"""Blobs come into a folder piece by piece, and only whole ones stay there."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pie_files import BlobFolder
from pie_proto import Blob, BlobPiece, hash_of

SOON = 30
"""How long anything that must happen may take, in seconds."""


def pieces(blob: bytes, size: int) -> list[BlobPiece]:
    return [
        BlobPiece(
            blob[start : start + size],
            hash=hash_of(blob),
            offset=start,
            is_last=start + size >= len(blob),
        )
        for start in range(0, len(blob), size)
    ]


BLOB = bytes(range(256)) * 5


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_blob_is_there_under_its_hash_when_it_is_whole(tmp_path: Path) -> None:
    folder = BlobFolder(tmp_path)
    *most, last = pieces(BLOB, 500)
    for piece in most:
        assert folder.write(piece) is None
        (name,) = names(tmp_path)
        assert name.startswith(hash_of(BLOB))
        assert name.endswith(".part")
    path = folder.write(last)
    assert path == str(tmp_path / hash_of(BLOB))
    assert Path(path).read_bytes() == BLOB
    folder.close()
    assert names(tmp_path) == [hash_of(BLOB)]


def test_what_is_no_piece_is_a_whole_blob(tmp_path: Path) -> None:
    assert BlobFolder(tmp_path).write(BLOB) == str(tmp_path / hash_of(BLOB))
    assert (tmp_path / hash_of(BLOB)).read_bytes() == BLOB


def test_two_blobs_may_be_mixed_and_two_receivers_may_share_a_folder(tmp_path: Path) -> None:
    other = BLOB[::-1]
    mine, theirs = BlobFolder(tmp_path), BlobFolder(tmp_path)
    paths = [
        folder.write(piece)
        for couple in zip(pieces(BLOB, 500), pieces(other, 500), strict=True)
        for piece in couple
        for folder in (mine, theirs)
    ]
    assert [path for path in paths if path] == [
        str(tmp_path / hash_of(blob)) for blob in (BLOB, BLOB, other, other)
    ]
    assert (tmp_path / hash_of(BLOB)).read_bytes() == BLOB
    assert (tmp_path / hash_of(other)).read_bytes() == other


def test_a_piece_that_is_written_twice_is_written_once(tmp_path: Path) -> None:
    folder = BlobFolder(tmp_path)
    for piece in pieces(BLOB, 500):
        first, second = folder.write(piece), folder.write(piece)
        assert first == second
    assert (tmp_path / hash_of(BLOB)).read_bytes() == BLOB
    assert names(tmp_path) == [hash_of(BLOB)]


def test_what_never_becomes_whole_is_removed(tmp_path: Path) -> None:
    folder = BlobFolder(tmp_path)
    first, second, *_ = pieces(BLOB, 500)
    folder.write(first)
    folder.close()
    folder.close()
    assert names(tmp_path) == []
    # One who was about to write when it was closed leaves nothing, either.
    assert folder.write(first) is None
    assert folder.write(second) is None
    assert names(tmp_path) == []


def test_a_folder_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError, match="nowhere"):
        BlobFolder(tmp_path / "nowhere")


def test_a_piece_that_could_not_be_written_is_written_later(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    folder = BlobFolder(inner)
    inner.rmdir()
    first, *rest = pieces(BLOB, 500)
    with pytest.raises(FileNotFoundError):
        folder.write(first)
    inner.mkdir()
    paths = [folder.write(piece) for piece in (first, *rest)]
    assert paths[-1] == str(inner / hash_of(BLOB))
    assert (inner / hash_of(BLOB)).read_bytes() == BLOB


def test_two_threads_that_write_the_same_piece_write_it_once(tmp_path: Path) -> None:
    folder = BlobFolder(tmp_path)
    for piece in (*pieces(BLOB, 500), Blob(BLOB, hash=hash_of(BLOB))):
        (tmp_path / hash_of(BLOB)).unlink(missing_ok=True)
        with ThreadPoolExecutor(4) as threads:
            first, *others = threads.map(folder.write, [piece] * 4, timeout=SOON)
        assert others == [first] * 3
    assert (tmp_path / hash_of(BLOB)).read_bytes() == BLOB


def test_a_write_that_comes_late_does_not_write_again(tmp_path: Path) -> None:
    folder = BlobFolder(tmp_path)
    blob = Blob(BLOB, hash=hash_of(BLOB))
    late = folder.writing(blob)
    path = folder.write(blob)
    folder.settled()
    assert path is not None
    Path(path).unlink()
    assert late() == path
    assert names(tmp_path) == []
    # The same content from another blob is another file.
    assert folder.write(Blob(BLOB, hash=hash_of(BLOB))) == path
    assert names(tmp_path) == [hash_of(BLOB)]


def test_a_blob_that_comes_twice_is_written_twice(tmp_path: Path) -> None:
    folder = BlobFolder(tmp_path)
    blob = Blob(BLOB, hash=hash_of(BLOB))
    path = folder.write(blob)
    folder.settled()
    assert path is not None
    Path(path).unlink()
    assert folder.write(blob) == path
    assert Path(path).read_bytes() == BLOB


def test_closing_waits_for_no_thread_that_writes_and_nothing_is_left(tmp_path: Path) -> None:
    folder = BlobFolder(tmp_path)
    first, *_ = pieces(BLOB, 500)
    folder.write(first)
    writes, write_on = threading.Event(), threading.Event()

    def write() -> None:
        with folder._closing:
            writes.set()
            assert write_on.wait(SOON)

    thread = threading.Thread(target=write)
    thread.start()
    assert writes.wait(SOON)
    folder.close()
    assert names(tmp_path) != []
    write_on.set()
    thread.join(SOON)
    assert names(tmp_path) == []
