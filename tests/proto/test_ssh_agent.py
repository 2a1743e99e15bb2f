"""What is said to an ssh-agent, byte by byte, and what is made of its answers."""

from __future__ import annotations

from contextlib import suppress

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from pie_proto.errors import AgentError
from pie_proto.public_keys import PublicKey
from pie_proto.ssh_agent import identities_request, read_identities, read_signature, sign_request

CHALLENGE = bytes(range(48))
ED25519 = Ed25519PrivateKey.from_private_bytes(bytes(32))
ED25519_KEY = PublicKey.of(ED25519.public_key())


def string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def mpint(number: int) -> bytes:
    return string(number.to_bytes(number.bit_length() // 8 + 1, "big"))


def signed(name: bytes, value: bytes) -> bytes:
    return b"\x0e" + string(string(name) + string(value))


def test_keys_are_asked_for() -> None:
    assert identities_request() == b"\x00\x00\x00\x01\x0b"


def test_a_signature_is_asked_for_with_the_key_and_the_challenge() -> None:
    body = b"\x0d" + string(ED25519_KEY.blob) + string(CHALLENGE) + bytes(4)
    assert sign_request(ED25519_KEY, CHALLENGE) == string(body)


def test_an_rsa_key_is_asked_for_sha_256() -> None:
    key = PublicKey.of(rsa.generate_private_key(65537, 2048).public_key())
    assert sign_request(key, CHALLENGE).endswith(b"\x00\x00\x00\x02")


@pytest.mark.parametrize("length", [0, 65, 1000])
def test_a_challenge_that_could_be_a_login_is_not_given_to_the_agent(length: int) -> None:
    with pytest.raises(AgentError, match=f"{length} bytes"):
        sign_request(ED25519_KEY, bytes(length))


def test_the_agents_keys_are_read_and_those_of_other_kinds_left_out() -> None:
    other = string(b"sk-ssh-ed25519@openssh.com") + string(bytes(32))
    reply = (
        b"\x0c\x00\x00\x00\x02"
        + string(other)
        + string(b"a token")
        + string(ED25519_KEY.blob)
        + string("Zoë's".encode())
    )
    assert [(key, key.comment) for key in read_identities(reply)] == [(ED25519_KEY, "Zoë's")]


def test_an_ed25519_signature_is_as_it_is() -> None:
    signature = ED25519.sign(CHALLENGE)
    assert read_signature(signed(b"ssh-ed25519", signature), ED25519_KEY) == signature
    assert ED25519_KEY.verify(CHALLENGE, signature)


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1()], ids=lambda curve: curve.name)
def test_an_ecdsa_signature_becomes_der(curve: ec.EllipticCurve) -> None:
    private = ec.generate_private_key(curve)
    key = PublicKey.of(private.public_key())
    digest = hashes.SHA256() if curve.key_size == 256 else hashes.SHA384()
    r, s = decode_dss_signature(private.sign(CHALLENGE, ec.ECDSA(digest)))
    reply = signed(key.key_type.encode(), mpint(r) + mpint(s))
    assert key.verify(CHALLENGE, read_signature(reply, key))


def test_an_rsa_signature_gets_its_leading_zeros_back() -> None:
    private = rsa.generate_private_key(65537, 2048)
    key = PublicKey.of(private.public_key())
    signature = private.sign(CHALLENGE, padding.PKCS1v15(), hashes.SHA256())
    assert read_signature(signed(b"rsa-sha2-256", signature), key) == signature
    assert read_signature(signed(b"rsa-sha2-256", b"\x01"), key) == b"\x01".rjust(256, b"\0")


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (b"\x05", "refused to sign"),
        (b"", "type None"),
        (b"\x0c\x00\x00\x00\x00", "type 12"),
        (b"\x0e", "damaged"),
        (b"\x0e\x00\x00\x00\x09ssh", "damaged"),
        (signed(b"ssh-rsa", b"x"), "signed as 'ssh-rsa', not as 'ssh-ed25519'"),
    ],
)
def test_what_is_no_signature_is_said_in_words(reply: bytes, told: str) -> None:
    with pytest.raises(AgentError, match=told):
        read_signature(reply, ED25519_KEY)


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (b"\x05", "refused to list"),
        (b"\x0c", "damaged"),
        (b"\x0c\x00\x00\x00\x01", "damaged"),
        (b"\x0c\xff\xff\xff\xff" + string(b"x") + string(b"y"), "damaged"),
    ],
)
def test_what_is_no_list_of_keys_is_said_in_words(reply: bytes, told: str) -> None:
    with pytest.raises(AgentError, match=told):
        read_identities(reply)


@given(st.sampled_from([b"\x0c", b"\x0e"]), st.binary(max_size=200))
def test_nothing_else_comes_of_any_answer(kind: bytes, rest: bytes) -> None:
    for read in (read_identities, lambda reply: read_signature(reply, ED25519_KEY)):
        with suppress(AgentError):
            read(kind + rest)
