"""Blobs come into a folder piece by piece, and only whole ones stay there."""

from __future__ import annotations

from pathlib import Path

import pytest

from pie_files import BlobFolder
from pie_proto import BlobPiece, hash_of


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
