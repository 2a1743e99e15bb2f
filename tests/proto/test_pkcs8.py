"""PKCS#8 keys of version 2 are read, and those that are none are called what they are."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
from contextlib import suppress

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from pie_proto import pkcs8
from pie_proto.errors import KeyFormatError
from pie_proto.keys import ParsedPrivateKey
from pie_proto.public_keys import PublicKey
from tests.proto.pkcs8_keys import NAME, VERSION_2, der, encrypted, pem

KINDS = list(VERSION_2)
STRANGERS = "its two halves do not belong together"


def refusal(text: str, passphrase: str | None = None) -> str:
    with pytest.raises(KeyFormatError) as caught:
        ParsedPrivateKey.parse(text, passphrase=passphrase)
    return str(caught.value)


def explicit(public: bytes) -> bytes:
    """As some libraries write it: a bit string within the tag, in place of one with the tag."""
    return der(0xA1, der(0x03, b"\0", public))


FORMS = {
    "with its public key": {},
    "with an attribute too": {"attributes": NAME},
    "with an attribute alone": {"attributes": NAME, "public": b""},
    "with nothing more": {"public": b""},
    "called version 1": {"version": b"\0"},
    "called version 1, with an attribute alone": {
        "version": b"\0",
        "attributes": NAME,
        "public": b"",
    },
    "without attributes in their place": {"attributes": der(0xA0)},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", FORMS)
def test_a_key_of_version_2_is_the_key_that_it_is_in_version_1(kind: str, form: str) -> None:
    sample = VERSION_2[kind]
    expected = PublicKey.of(sample.key.public_key()).line()
    text = sample.pem(**FORMS[form])
    assert ParsedPrivateKey.parse(text).public_key() == expected
    hidden = pem(encrypted(sample.der(**FORMS[form]), b"secret"), "ENCRYPTED PRIVATE KEY")
    key = ParsedPrivateKey.parse(hidden, passphrase="secret")
    assert key.public_key() == expected
    assert PublicKey.parse(expected).verify(b"challenge", key.sign(b"challenge"))
    assert refusal(hidden, "wrong") == "the passphrase is wrong, or the private key is damaged"
    assert "passphrase= is wanted" in refusal(hidden)


@pytest.mark.parametrize("kind", KINDS)
def test_the_public_key_may_be_written_in_other_ways(kind: str) -> None:
    sample = VERSION_2[kind]
    expected = PublicKey.of(sample.key.public_key()).line()
    ways = [explicit(sample.public)]
    if kind.startswith("P-"):
        point = sample.key.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
        ways.append(der(0x81, b"\0", point))
    for way in ways:
        assert ParsedPrivateKey.parse(sample.pem(public=way)).public_key() == expected


@pytest.mark.parametrize("kind", KINDS)
def test_a_public_key_that_is_of_another_private_key_is_refused(kind: str) -> None:
    sample = VERSION_2[kind]
    other = sample.public[:-1] + bytes([sample.public[-1] ^ 1])
    for public in (other, b"", VERSION_2["Ed25519" if kind != "Ed25519" else "P-256"].public):
        assert STRANGERS in refusal(sample.pem(public=der(0x81, b"\0", public)))
        data = sample.der(public=der(0x81, b"\0", public))
        hidden = pem(encrypted(data, b"secret"), "ENCRYPTED PRIVATE KEY")
        assert STRANGERS in refusal(hidden, "secret")


def test_a_version_that_does_not_exist_is_refused_with_its_number() -> None:
    for kind in KINDS:
        said = refusal(VERSION_2[kind].pem(version=b"\2"))
        assert said == "found PKCS#8 version 3: versions 1 and 2 are taken"


@pytest.mark.parametrize(
    "options",
    [
        {"more": b"\5\0"},
        {"version": b""},
        {"version": b"\1\1"},
        {"public": der(0x81)},
        {"public": der(0x81, b"\1abc")},
        {"public": der(0xA1, b"abc")},
        {"public": der(0xA1, der(0x03, b"\0abc"), b"more")},
        {"public": b"\x81\x7fabc"},
        {"attributes": b"\xa0\x80"},
    ],
)
def test_a_key_of_version_2_that_is_damaged_is_called_damaged(options: dict[str, bytes]) -> None:
    assert "damaged" in refusal(VERSION_2["Ed25519"].pem(**options))


def test_a_key_of_version_2_of_another_kind_is_refused_by_name() -> None:
    algorithm = der(0x30, der(0x06, bytes.fromhex("2b656e")))
    body = der(0x30, der(0x02, b"\1"), algorithm, der(0x04, der(0x04, bytes(range(32)))))
    assert "X25519" in refusal(pem(body))


@pytest.mark.parametrize("kind", KINDS)
def test_version_2_in_an_old_encryption_is_called_what_it_is(kind: str) -> None:
    data = encrypted(VERSION_2[kind].der(), b"secret", triple_des=True)
    assert pkcs8.decrypted(data, b"secret") is None
    said = refusal(pem(data, "ENCRYPTED PRIVATE KEY"), "secret")
    assert "version 2 is not supported with this encryption" in said
    assert "damaged" not in said
    assert "wrong" not in said


def test_an_old_encryption_itself_is_read() -> None:
    key = VERSION_2["P-256"].key
    data = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    hidden = pem(encrypted(data, b"secret", triple_des=True), "ENCRYPTED PRIVATE KEY")
    assert ParsedPrivateKey.parse(hidden, passphrase="secret")
    # One wrong passphrase in 256 decrypts to something.
    said = refusal(hidden, "not that one")
    assert re.search("the passphrase is wrong|what the passphrase decrypts is no private key", said)


def test_other_encryptions_are_left_to_others() -> None:
    good = encrypted(b"content", b"secret")
    assert pkcs8.decrypted(good, b"secret") == b"content"
    for old, new in (
        ("2a864886f70d01050d", "2a864886f70d01050e"),  # the scheme
        ("2a864886f70d01050c", "2a864886f70d01050e"),  # how the key is derived
        ("2a864886f70d0209", "2a864886f70d0201"),  # the digest for that
        ("60864801650304012a", "60864801650304012b"),  # the cipher
    ):
        changed = good.replace(bytes.fromhex(old), bytes.fromhex(new))
        assert changed != good
        assert pkcs8.decrypted(changed, b"secret") is None


SCHEMES = [
    ["-v2", "aes-128-cbc"],
    ["-v2", "aes-192-cbc", "-v2prf", "hmacWithSHA1"],
    ["-v2", "aes-256-cbc", "-v2prf", "hmacWithSHA224"],
    ["-v2", "aes-256-cbc", "-v2prf", "hmacWithSHA384"],
    ["-v2", "aes-256-cbc", "-v2prf", "hmacWithSHA512"],
    ["-scrypt"],
]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl here")
@pytest.mark.parametrize("scheme", [*SCHEMES, ["-v2", "des3"]], ids=" ".join)
def test_what_openssl_encrypts_is_decrypted(scheme: list[str]) -> None:
    key = VERSION_2["P-256"].key
    plain = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    done = subprocess.run(
        ["openssl", "pkcs8", "-topk8", "-passout", "pass:secret", *scheme],
        input=plain,
        check=True,
        capture_output=True,
        timeout=60,
    )
    data = base64.b64decode(b"".join(done.stdout.split(b"\n")[1:-2]))
    found = pkcs8.decrypted(data, b"secret")
    if scheme not in SCHEMES:
        assert found is None
        return
    assert found is not None
    assert (parts := pkcs8.parts_of(found)) is not None
    assert parts.is_plain
    assert ParsedPrivateKey.parse(done.stdout, passphrase="secret")


SAMPLE = VERSION_2["P-256"].der(attributes=NAME)
HIDDEN = encrypted(SAMPLE, b"secret")


@given(at=st.floats(0, 1), cut=st.integers(0, 8), put=st.binary(max_size=8))
@settings(max_examples=300, deadline=None)
def test_no_damage_makes_it_raise_anything_else(at: float, cut: int, put: bytes) -> None:
    index = int(at * len(SAMPLE))
    damaged = SAMPLE[:index] + put + SAMPLE[index + cut :]
    with suppress(KeyFormatError):
        ParsedPrivateKey.parse(pem(damaged))
    # Behind the number of rounds: it would only take long.
    index = 110 + int(at * (len(HIDDEN) - 110))
    damaged = HIDDEN[:index] + put + HIDDEN[index + cut :]
    with suppress(KeyFormatError):
        ParsedPrivateKey.parse(pem(damaged, "ENCRYPTED PRIVATE KEY"), passphrase="secret")
