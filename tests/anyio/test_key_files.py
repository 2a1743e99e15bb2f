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


PUTTY = "PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\n"
CERTIFICATE = f"ssh-ed25519-cert-v01@openssh.com {PUBLIC.split()[1]} ada\n"
PUBLIC_PEM = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
ENCRYPTED = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))


@posix
@pytest.mark.parametrize(
    ("content", "found"),
    [
        (f"{PUBLIC} ada@host\n".encode(), "this is a public key"),
        (f"# ada's\n{PUBLIC}\n".encode(), "this is a public key"),
        (f"{PUBLIC}\r\n".encode("utf-16"), "this is a public key"),
        (PUBLIC_PEM, "this is a public key"),
        (b"---- BEGIN SSH2 PUBLIC KEY ----\nAAAA\n", "this is a public key"),
        (CERTIFICATE.encode(), "this is a certificate"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n", "this is a certificate"),
        (b"", "the text is empty"),
        (b"dear diary,\nI lost my key", "found no key"),
        (b"#" * 70_000, "more than 65536 bytes"),
    ],
    ids=[
        *("public key", "comment before it", "UTF-16", "PEM", "SSH2"),
        *("certificate", "X.509", "empty", "text", "long"),
    ],
)
def test_a_file_without_a_private_key_is_called_what_it_is_and_nothing_is_warned_of(
    path: Path, content: bytes, found: str
) -> None:
    path.write_bytes(content)
    path.chmod(0o644)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(KeyFormatError, match=found):
            ParsedPrivateKey.from_file(path)


@posix
@pytest.mark.parametrize(
    ("content", "found"),
    [
        (ENCRYPTED, "passphrase= is wanted"),
        (ENCRYPTED.decode().encode("utf-16"), "passphrase= is wanted"),
        (b"-----BEGIN DSA PRIVATE KEY-----\nAAAA\n", "DSA PRIVATE KEY"),
        (PUBLIC_PEM + ENCRYPTED, "passphrase= is wanted"),
        (PUTTY.encode(), "a key of PuTTY"),
    ],
    ids=["encrypted", "UTF-16", "DSA", "public key before it", "PuTTY"],
)
def test_a_private_key_that_is_not_read_is_warned_of_all_the_same(
    path: Path, content: bytes, found: str
) -> None:
    path.write_bytes(content)
    path.chmod(0o644)
    with pytest.warns(KeyFileWarning), pytest.raises(KeyFormatError, match=found):
        ParsedPrivateKey.from_file(path)


@pytest.mark.parametrize("content", [PUBLIC.encode(), PUBLIC_PEM], ids=["OpenSSH", "PEM"])
def test_for_a_file_of_a_public_key_the_private_ones_is_named(path: Path, content: bytes) -> None:
    public = path.with_name("id_ed25519.pub")
    public.write_bytes(content)
    with pytest.raises(KeyFormatError) as caught:
        ParsedPrivateKey.from_file(public)
    assert str(caught.value).endswith(f"the private key that belongs to it should be {path}")
    public.write_bytes(ENCRYPTED)
    public.chmod(0o600)
    with pytest.raises(KeyFormatError) as caught:
        ParsedPrivateKey.from_file(public)
    assert "belongs to it" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_file_is_read_in_the_encoding_that_it_has(path: Path, encoding: str) -> None:
    text = path.read_text()
    path.write_bytes(text.replace("\n", "\r\n").encode(encoding))
    assert ParsedPrivateKey.from_file(path).public_key() == PUBLIC
