"""Private keys from files: paths, permissions, sizes."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from pie_files import KeyFileWarning, ParsedPrivateKey
from pie_proto import keys
from pie_proto.errors import KeyFormatError

KEY = ed25519.Ed25519PrivateKey.generate()
PUBLIC = KEY.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
posix = pytest.mark.skipif(os.name != "posix", reason="permissions as POSIX knows them")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "id_ed25519"
    path.touch(mode=0o600)
    path.write_bytes(KEY.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    return path


def test_a_key_is_read_from_a_path_or_its_name(path: Path) -> None:
    for given in (path, str(path)):
        key = ParsedPrivateKey.from_file(given)
        assert key.public_key() == PUBLIC
        assert isinstance(key, keys.ParsedPrivateKey)
        assert isinstance(key, keys.Signer)


def test_a_tilde_is_the_home_directory(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(path.parent))
    monkeypatch.setenv("USERPROFILE", str(path.parent))
    assert ParsedPrivateKey.from_file("~/id_ed25519").public_key() == PUBLIC
    assert ParsedPrivateKey.from_file(Path("~/id_ed25519")).public_key() == PUBLIC


def test_an_encrypted_file_opens_with_its_passphrase(path: Path) -> None:
    secrecy = BestAvailableEncryption(b"secret")
    path.write_bytes(KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, secrecy))
    assert ParsedPrivateKey.from_file(path, passphrase="secret").public_key() == PUBLIC
    with pytest.raises(KeyFormatError, match="passphrase= is wanted"):
        ParsedPrivateKey.from_file(path)


@pytest.mark.parametrize("name", ["missing", "~nobody-of-this-name/key", "."])
def test_what_the_system_says_arrives_as_itself(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError, match=r"No such file|directory|denied"):
        ParsedPrivateKey.from_file(name)


def test_what_is_wrong_with_a_key_is_told_with_the_name_of_the_file(path: Path) -> None:
    path.write_text(PUBLIC)
    with pytest.raises(KeyFormatError) as caught:
        ParsedPrivateKey.from_file(path)
    assert str(caught.value).startswith(f"{path}: this is a public key (ssh-ed25519): ")


def test_a_file_of_64_kib_is_read(path: Path) -> None:
    pem = path.read_bytes()
    path.write_bytes(b"#" * (64 * 1024 - len(pem)) + pem)
    assert ParsedPrivateKey.from_file(path).public_key() == PUBLIC


def test_a_longer_file_is_refused(path: Path) -> None:
    pem = path.read_bytes()
    path.write_bytes(b"#" * (64 * 1024 - len(pem) + 1) + pem)
    with pytest.raises(KeyFormatError, match="more than 65536 bytes"):
        ParsedPrivateKey.from_file(path)


@posix
def test_a_file_without_an_end_is_not_read_to_its_end() -> None:
    with pytest.raises(KeyFormatError, match="more than 65536 bytes"):
        ParsedPrivateKey.from_file("/dev/zero")


@posix
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_file_that_others_can_read_is_read_with_a_warning(path: Path, mode: int) -> None:
    path.chmod(mode)
    with pytest.warns(KeyFileWarning, match="can be read by others") as caught:
        key = ParsedPrivateKey.from_file(path)
    assert key.public_key() == PUBLIC
    assert caught[0].filename == __file__
    assert str(path) in str(caught[0].message)


@posix
@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_file_of_ones_own_is_read_in_silence(path: Path, mode: int) -> None:
    path.chmod(mode)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ParsedPrivateKey.from_file(path).public_key() == PUBLIC
