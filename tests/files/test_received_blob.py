"""A blob is saved under the name that a stranger gave it, and does no harm by it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pie_files import BlobFolder, ReceivedBlob
from pie_files.names import safe_name
from pie_proto import BlobPiece, hash_of

CONTENT = bytes(range(256)) * 5
HASH = hash_of(CONTENT)


def blob(name: str | None, content: bytes = CONTENT) -> ReceivedBlob:
    return ReceivedBlob(content, hash=hash_of(content), name=name)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --------------------------------------------------------------------------------------- the name


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("report.txt", "report.txt"),
        ("Überblick 日本.tar.gz", "Überblick 日本.tar.gz"),
        ("../../etc/passwd", "passwd"),
        ("/etc/passwd", "passwd"),
        (r"C:\Windows\system32\evil.dll", "evil.dll"),
        (r"a/b\c", "c"),
        ("folder/", ""),
        ("..", ""),
        (". .", ""),
        ("", ""),
        (".bashrc", "bashrc"),
        (" ..hidden", "hidden"),
        ("trailing. . ", "trailing"),
        ("a\0b\nc\x1b[2J\x7f\x9b", "abc[2J"),
        ("\N{RIGHT-TO-LEFT OVERRIDE}fdp.exe", "fdp.exe"),
        (".\N{ZERO WIDTH SPACE}.", ""),
        ("\ud800", ""),
        ('a<b>c:d"e|f?g*h', "a_b_c_d_e_f_g_h"),
        ("file.txt:stream", "file.txt_stream"),
        ("CON", "_CON"),
        ("nul.tar.gz", "_nul.tar.gz"),
        ("Com1 .txt", "_Com1 .txt"),
        ("lpt².txt", "_lpt².txt"),
        ("conin$", "_conin$"),
        ("console", "console"),
        ("com.txt", "com.txt"),
        ("x" * 300, "x" * 255),
        ("x" * 300 + ".txt", "x" * 251 + ".txt"),
        ("x" * 300 + ". .txt", "x" * 251 + ".txt"),
        ("é" * 200, "é" * 127),
        ("🥧" * 100 + ".png", "🥧" * 62 + ".png"),
        ("x" * 250 + "      " + "y" * 50, "x" * 250),
        ("a." + "y" * 300, "a." + "y" * 253),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_name_of_a_strangers_is_made_harmless(name: str, safe: str, tmp_path: Path) -> None:
    assert safe_name(name) == safe
    assert safe_name(safe) == safe
    path = blob(name).save(tmp_path)
    assert path == tmp_path / (safe or HASH)
    assert path.read_bytes() == CONTENT
    assert names(tmp_path) == [path.name]


@given(st.text(alphabet=st.characters() | st.sampled_from("./\\ :"), max_size=300))
def test_no_name_is_harmful(name: str) -> None:
    safe = safe_name(name)
    assert not set(safe) & set('/\\<>:"|?*')
    assert safe == safe.strip(". ")
    assert len(safe.encode()) <= 255
    assert all(ord(char) >= 0x20 for char in safe)


def test_what_has_no_name_is_called_by_its_hash(tmp_path: Path) -> None:
    assert blob(None).save(str(tmp_path)) == tmp_path / HASH
    assert blob(None, b"").save(tmp_path) == tmp_path / hash_of(b"")


# ---------------------------------------------------------------------------- what is there already


def test_no_file_is_overwritten(tmp_path: Path) -> None:
    for number, content in enumerate((b"mine", b"ours", b"same length", b"less length")):
        path = blob("a.tar.gz", content).save(tmp_path)
        mark = "" if number == 0 else "-" + hash_of(content)[:8]
        assert path == tmp_path / f"a.tar{mark}.gz"
        assert path.read_bytes() == content
    assert (tmp_path / "a.tar.gz").read_bytes() == b"mine"
    assert len(names(tmp_path)) == 4


def test_the_same_content_is_kept_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"other")
    first, again = blob("a").save(tmp_path), blob("a").save(tmp_path)
    assert first == again == tmp_path / f"a-{HASH[:8]}"
    assert names(tmp_path) == ["a", first.name]


def test_what_is_taken_may_be_anything(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(CONTENT)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link").symlink_to(elsewhere)
    (folder / "dangling").symlink_to(tmp_path / "nowhere")
    (folder / "directory").mkdir()
    os.mkfifo(folder / "pipe")
    taken = names(folder)
    for name in taken:
        assert blob(name).save(folder) == folder / f"{name}-{HASH[:8]}"
    assert elsewhere.read_bytes() == CONTENT
    assert not (tmp_path / "nowhere").exists()


def test_longer_parts_of_the_hash_are_tried_and_then_it_is_given_up(tmp_path: Path) -> None:
    name = "x" * 300 + ".txt"
    taken = [blob(name).save(tmp_path)]
    for length in (8, 16, 32, 64):
        taken[-1].write_bytes(b"changed")
        path = blob(name).save(tmp_path)
        assert path.name.endswith(f"x-{HASH[:length]}.txt")
        assert len(path.name) == 255
        taken.append(path)
    taken[-1].write_bytes(b"changed")
    with pytest.raises(FileExistsError) as caught:
        blob(name).save(tmp_path)
    assert caught.value.filename == str(taken[0])
    assert names(tmp_path) == sorted(path.name for path in taken)


def test_a_name_like_that_of_a_part_is_in_nobodys_way(tmp_path: Path) -> None:
    folder = BlobFolder(tmp_path)
    folder.write(BlobPiece(b"", hash=HASH, offset=0, is_last=False))
    (part,) = names(tmp_path)
    folder.close()
    number = int(part.removesuffix(".part").rpartition("-")[2])
    guessed = [part.replace(f"-{number}.", f"-{number + step}.") for step in (1, 2, 3)]
    for name in guessed:
        assert blob(name, b"of a stranger").save(tmp_path) == tmp_path / name
    assert blob("b").save(tmp_path) == tmp_path / "b"
    assert names(tmp_path) == [*sorted(guessed), "b"]


# ---------------------------------------------------------------------------------- what goes wrong


def failing(error: int) -> Callable[..., NoReturn]:
    def fail(*_: object, **__: object) -> NoReturn:
        raise OSError(error, os.strerror(error))

    return fail


def test_where_files_cannot_have_two_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", failing(errno.EPERM))
    test_no_file_is_overwritten(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", failing(errno.EIO))
        patch.setattr(os, "replace", failing(errno.EIO))
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            blob("b").save(tmp_path)
    assert "b" not in names(tmp_path)
    assert len(names(tmp_path)) == 4


@pytest.mark.parametrize("two_names", [True, False])
def test_who_comes_in_between_is_not_overwritten(
    two_names: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def late(part: Path, path: Path) -> None:
        if path.name == "a":
            path.write_bytes(b"came in between")
        if not two_names:
            raise OSError(errno.EPERM, "none here")
        link(part, path)

    monkeypatch.setattr(os, "link", late)
    assert blob("a").save(tmp_path) == tmp_path / f"a-{HASH[:8]}"
    assert (tmp_path / "a").read_bytes() == b"came in between"
    assert names(tmp_path) == ["a", f"a-{HASH[:8]}"]


def test_a_disk_that_is_full_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "write_bytes", failing(errno.ENOSPC))
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        blob("a").save(tmp_path)
    assert names(tmp_path) == []


def test_a_folder_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError, match="nowhere"):
        blob("a").save(tmp_path / "nowhere")
