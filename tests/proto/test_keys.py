"""Keys that sign, keys that verify: what is taken, what is refused and how that is said."""

from __future__ import annotations

import base64
import pickle
import re
import subprocess
import sys

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, padding, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_public_key,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pie_proto.errors import KeyFormatError, PieError
from pie_proto.key_text import has_private_key, has_public_key
from pie_proto.keys import ParsedPrivateKey, Signer
from pie_proto.public_keys import PublicKey, parse_authorized_keys
from tests.proto.pkcs8_keys import VERSION_2

CHALLENGE = bytes(range(48))

# Throw-away samples, made once by ssh-keygen of OpenSSH 9.2 and used nowhere else.

ED25519 = """\
-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW
QyNTUxOQAAACDcm09nPE5uU64E+RkZziGRc0AtKjxKom46qJV9EcQk7wAAAJhqXM35alzN
+QAAAAtzc2gtZWQyNTUxOQAAACDcm09nPE5uU64E+RkZziGRc0AtKjxKom46qJV9EcQk7w
AAAECf7KO+591/Zf2gOD2OHBZ0ymNxPUCdhNSIE1pmVy0hwdybT2c8Tm5TrgT5GRnOIZFz
QC0qPEqibjqolX0RxCTvAAAAEXRocm93LWF3YXkgc2FtcGxlAQIDBA==
-----END OPENSSH PRIVATE KEY-----
"""
ED25519_PUBLIC = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINybT2c8Tm5TrgT5GRnOIZFzQC0qPEqibjqolX0RxCTv"
ED25519_FINGERPRINT = "SHA256:mKX/iha3Fc6yd9VUnSV2rLGgWBZHbB2EaAE3rZAUC2Q"

# ssh-keygen -t ed25519 -a 1 -N "correct horse"
ED25519_ENCRYPTED = """\
-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAACmFlczI1Ni1jdHIAAAAGYmNyeXB0AAAAGAAAABAlxYx9dS
D8l9HaxLxnYluiAAAAAQAAAAEAAAAzAAAAC3NzaC1lZDI1NTE5AAAAIH4I1GfhIUE37iFl
Q2qDEUAuc4t+Uj7pGk/7EqqnomPoAAAAoF1eQxU/fOoIxJkIDndtfslitUstcXI0DViHNr
A5vCKvmziA3+i9wC3j3Bz5NlsxQ4Of0cVtPmzZNYefiZl6bMk4afsmnzd7So6tw6V4OCiv
Fq9rhunOTDhkzH8xMb/c+T0N3eItfKBi49Jx/BXyCvyzmHTVNuek3L1pqObXO6x80U3UoL
fBW9PIrgjeZ/jtSYGkVTPU+9P8hVwfARLMevc=
-----END OPENSSH PRIVATE KEY-----
"""
ED25519_ENCRYPTED_FINGERPRINT = "SHA256:3GwSrBpnYKv8yGYsAzxNhwGq5zqNNiC6VEQhHuD2JQE"

# ssh-keygen -t ed25519 -Z aes128-ctr -N "correct horse"
ED25519_AES128 = """\
-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAACmFlczEyOC1jdHIAAAAGYmNyeXB0AAAAGAAAABCcumNlw1
f3QHqAILYYMQoDAAAABAAAAAEAAAAzAAAAC3NzaC1lZDI1NTE5AAAAIAbA2fOsFORTJXGO
h+KlRdR6npa4v1FdSJaNMwNJuRabAAAAkGB7HLhACxc8XVaXb9Gv+gJxDI2BEjwfuZBXxi
hx3DW7NP9wXBjS5hhC/KNuX1+OFd58djEPdEsrThpHf+kkiKQO7UAvubK0ny8yD5NHDJob
9/Ue1RR+UnWtkGQE1gDBWqHeRhymw2HDWRL4dfqiuxGIOYysUiLVJz1OEZCm2oEEX0WPTE
gPBVhxmxq/LaEtow==
-----END OPENSSH PRIVATE KEY-----
"""

P256 = """\
-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAaAAAABNlY2RzYS
1zaGEyLW5pc3RwMjU2AAAACG5pc3RwMjU2AAAAQQS3Q2dKpp7J7mb35im3wAItXRlbI5Do
xoW+xdEYlHpKaofWD11V84rUvOKN8FPmWquN3rA0TR/uTwNBI9REzRpQAAAAoHqCP5J6gj
+SAAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBLdDZ0qmnsnuZvfm
KbfAAi1dGVsjkOjGhb7F0RiUekpqh9YPXVXzitS84o3wU+Zaq43esDRNH+5PA0Ej1ETNGl
AAAAAgdF1FUZwZrW3qESo8ZGZSdxnO9MKJ0l4A7Z/+XCJqwoMAAAABcwECAwQFBgc=
-----END OPENSSH PRIVATE KEY-----
"""
P256_FINGERPRINT = "SHA256:wDW8r4k2pJEcAfUt4vI0WWv4V5vHPfyxcm3bXAJF3Oo"

P521_PUBLIC = (
    "ecdsa-sha2-nistp521 AAAAE2VjZHNhLXNoYTItbmlzdHA1MjEAAAAIbmlzdHA1MjEAAACFBAAnHBD9"
    "DBx8VeRR7RU1YCpxKQvj1lsM1QkXFk1M6rtt5GhGJbM+vDuYOME3beKkYoZum111kJkFAv3V/MicciZJ"
    "lQDSlJBQRidOmycmmQ7cX/RpO9n94tUa83HCJbFRr2EDTxYV7ec8yvTqzNqZSpeWZfZEknZhMCKk+xSp"
    "s4XZDZ/lfg== s"
)
DSA_PUBLIC = (
    "ssh-dss AAAAB3NzaC1kc3MAAACBAIWsYS9hNzHcLy+HqHO3HmVhxYZYOc+jOcMp2oAowtaKxVwWYDrt"
    "Fc00CXJUgQDmpQAn5fw+w/Z5EelXuhTCYjxEUCz4P3G5dLlP/JkyqCVoBaqnvmHJCWmZk0eYJ+FMyq+T"
    "33CH2hF9waV40En2d62rNC4wzrH4UGqIa6LNHS9VAAAAFQCTaua36WXvFLaHjW7JzpwBO0ZT8wAAAIBK"
    "Pv3IVb02vI7mixGJp7LE9TrXHiNP9XcLMIbwZdEq6ZImuO4x4EOcQsPW+1DexTq3Rbpmj1w90AElXnci"
    "dsxD0rVxHk0yVKcrlsw6NqdyD91BbvwB+HBww52Ln4yUA2OPfUTrKCzu2kLBLjA144LPlr59dEzkXUnx"
    "w90U49XgcgAAAIBhYyjSgAeyUbOgGRjgtKQknVeee+qpdXCrR/Zsbe5AQMCyg0AQQVPD+Zjb3wKeq2jS"
    "zsbFfAowPVxiJkhYKwMGOld96J8W8jP/MqsorxaK1GiMAKt0DhVcNmTvdXQtrRS2iJ+NnVRybWtsPn+g"
    "CcAt/Whn38YQyEAuwNr5rKKBlA== s"
)
CERTIFICATE = (
    "ssh-ed25519-cert-v01@openssh.com AAAAIHNzaC1lZDI1NTE5LWNlcnQtdjAxQG9wZW5zc2guY29"
    "tAAAAILWZBOlYBGRCee1sjLyB4iDPmvlNTi9E+11cxEpT8NcPAAAAIH4I1GfhIUE37iFlQ2qDEUAuc4t"
    "+Uj7pGk/7EqqnomPoAAAAAAAAAAAAAAABAAAAAm1lAAAAAAAAAAAAAAAA//////////8AAAAAAAAAggA"
    "AABVwZXJtaXQtWDExLWZvcndhcmRpbmcAAAAAAAAAF3Blcm1pdC1hZ2VudC1mb3J3YXJkaW5nAAAAAAA"
    "AABZwZXJtaXQtcG9ydC1mb3J3YXJkaW5nAAAAAAAAAApwZXJtaXQtcHR5AAAAAAAAAA5wZXJtaXQtdXN"
    "lci1yYwAAAAAAAAAAAAAAMwAAAAtzc2gtZWQyNTUxOQAAACDcm09nPE5uU64E+RkZziGRc0AtKjxKom4"
    "6qJV9EcQk7wAAAFMAAAALc3NoLWVkMjU1MTkAAABAQx2YsqB5fxAxZNWTPV/8PdSTqajehcw7aISwHg9"
    "rIPuU7OVHVMk77lDQrGMX9wBCGLjiVMGQlmyTBgXnVBQ6DQ== throw-away sample"
)

PASSPHRASE = "correct horse"

PrivateKey = ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@pytest.fixture(scope="session")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture(scope="session")
def short_rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 1024)


@pytest.fixture(params=["ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384"])
def key(request: pytest.FixtureRequest, rsa_key: rsa.RSAPrivateKey) -> PrivateKey:
    match request.param:
        case "ssh-ed25519":
            return ed25519.Ed25519PrivateKey.generate()
        case "ssh-rsa":
            return rsa_key
        case "ecdsa-sha2-nistp256":
            return ec.generate_private_key(ec.SECP256R1())
        case _:
            return ec.generate_private_key(ec.SECP384R1())


def pem_of(key, form=PrivateFormat.PKCS8, passphrase: bytes | None = None) -> str:
    secrecy = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    if form is PrivateFormat.OpenSSH and passphrase:
        secrecy = (
            PrivateFormat.OpenSSH.encryption_builder().kdf_rounds(1).build(passphrase)
        )  # one round takes 10 ms
    return key.private_bytes(Encoding.PEM, form, secrecy).decode()


def line_of(key) -> str:
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def verified_independently(key: PrivateKey, signature: bytes) -> bool:
    """By `cryptography` alone, with what docs/protocol.md says written out."""
    public = key.public_key()
    try:
        if isinstance(public, ed25519.Ed25519PublicKey):
            public.verify(signature, CHALLENGE)
        elif isinstance(public, rsa.RSAPublicKey):
            public.verify(signature, CHALLENGE, padding.PKCS1v15(), hashes.SHA256())
        else:
            digest = hashes.SHA256() if public.curve.name == "secp256r1" else hashes.SHA384()
            public.verify(signature, CHALLENGE, ec.ECDSA(digest))
    except InvalidSignature:
        return False
    return True


def string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def openssh(
    blob: bytes, *, cipher: bytes = b"none", kdf: bytes = b"none", rounds: int = 16, keys: int = 1
) -> str:
    """An OpenSSH container with this public half, and nothing of use for a private one."""
    options = (
        string(string(bytes(16)) + rounds.to_bytes(4, "big")) if kdf != b"none" else string(b"")
    )
    raw = b"openssh-key-v1\0" + string(cipher) + string(kdf) + options
    raw += keys.to_bytes(4, "big") + string(blob) + string(bytes(64))
    body = base64.b64encode(raw).decode()
    return f"-----BEGIN OPENSSH PRIVATE KEY-----\n{body}\n-----END OPENSSH PRIVATE KEY-----\n"


def body_of(pem: str) -> bytes:
    return base64.b64decode("".join(pem.strip().splitlines()[1:-1]))


def with_body(pem: str, body: bytes) -> str:
    first, *_, last = pem.strip().splitlines()
    return f"{first}\n{base64.b64encode(body).decode()}\n{last}\n"


# --- what is taken ---------------------------------------------------------------------------


@pytest.mark.parametrize("passphrase", [None, b"correct horse"], ids=["plain", "encrypted"])
@pytest.mark.parametrize("form", ["OpenSSH", "PKCS8", "TraditionalOpenSSL"])
def test_every_kind_of_key_signs_from_every_form(
    key: PrivateKey, form: str, passphrase: bytes | None
) -> None:
    if isinstance(key, ed25519.Ed25519PrivateKey) and form == "TraditionalOpenSSL":
        form = "PKCS8"  # Ed25519 has no other
    parsed = ParsedPrivateKey.parse(
        pem_of(key, getattr(PrivateFormat, form), passphrase), passphrase=passphrase
    )
    assert verified_independently(key, parsed.sign(CHALLENGE))
    assert parsed.public_key() == line_of(key)
    assert parsed.key_type == line_of(key).split()[0]


def test_a_key_object_of_cryptography_signs_too(key: PrivateKey) -> None:
    parsed = ParsedPrivateKey(key)
    assert verified_independently(key, parsed.sign(CHALLENGE))
    assert parsed.public_key() == line_of(key)


def test_a_key_of_ssh_keygen_is_the_key_that_ssh_keygen_says_it_is() -> None:
    parsed = ParsedPrivateKey.parse(ED25519)
    assert parsed.key_type == "ssh-ed25519"
    assert parsed.public_key() == ED25519_PUBLIC
    assert parsed.fingerprint() == ED25519_FINGERPRINT
    load_ssh_public_key(ED25519_PUBLIC.encode()).verify(parsed.sign(CHALLENGE), CHALLENGE)
    assert ParsedPrivateKey.parse(P256).fingerprint() == P256_FINGERPRINT


@pytest.mark.parametrize("passphrase", [PASSPHRASE, PASSPHRASE.encode()])
def test_an_encrypted_key_of_ssh_keygen_opens_with_its_passphrase(passphrase: str | bytes) -> None:
    parsed = ParsedPrivateKey.parse(ED25519_ENCRYPTED, passphrase=passphrase)
    assert parsed.fingerprint() == ED25519_ENCRYPTED_FINGERPRINT


@pytest.mark.parametrize(
    "text",
    [
        ED25519.encode(),
        f"\n\n  {ED25519}\n\t\n",
        ED25519.replace("\n", "\r\n"),
        ED25519.replace("\n", "\r"),
        ED25519.replace("\n", "\n        "),
        ED25519.replace("\n", " "),
        ED25519.replace("\n", "\\n"),
        ED25519.replace("\n", "\\r\\n"),
        f"Bag Attributes: my key\nclé de test\n{ED25519}",
        f"Bag Attributes: my key\nclé de test\n{ED25519}".encode(),
        b"\xff\xfe comment" + ED25519.encode(),
        f"\ufeff{ED25519}",
        ED25519 + P256,
        "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n" + ED25519,
        f"{ED25519_PUBLIC}\n{ED25519}",
    ],
)
def test_what_stands_around_a_key_and_between_its_lines_does_not_matter(text: str | bytes) -> None:
    assert ParsedPrivateKey.parse(text).fingerprint() == ED25519_FINGERPRINT


def test_an_indented_encrypted_key_with_headers_is_understood(rsa_key: rsa.RSAPrivateKey) -> None:
    pem = pem_of(rsa_key, PrivateFormat.TraditionalOpenSSL, b"secret")
    assert "DEK-Info" in pem
    text = pem.replace("\n", "\r\n    ")
    assert ParsedPrivateKey.parse(text, passphrase="secret").public_key() == line_of(rsa_key)


@pytest.mark.parametrize("passphrase", ["", b"", "not needed", b"not needed"])
def test_a_passphrase_that_is_not_needed_is_not_looked_at(passphrase: str | bytes) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    for pem in (ED25519, pem_of(key)):
        assert ParsedPrivateKey.parse(pem, passphrase=passphrase).key_type == "ssh-ed25519"


# --- what it is to others --------------------------------------------------------------------


def test_it_is_a_signer_and_so_is_anything_that_signs_now_or_later() -> None:
    class Agent:
        async def sign(self, challenge: bytes, /) -> bytes:
            return challenge

    signers: list[Signer] = [ParsedPrivateKey.parse(ED25519), Agent()]
    assert all(isinstance(signer, Signer) for signer in signers)
    assert not isinstance("ssh-ed25519", Signer)


def test_it_shows_its_type_and_fingerprint_and_nothing_else() -> None:
    parsed = ParsedPrivateKey.parse(ED25519)
    assert repr(parsed) == f"<ParsedPrivateKey ssh-ed25519 {ED25519_FINGERPRINT}>"
    assert str(parsed) == repr(parsed)
    assert not hasattr(parsed, "__dict__")


def test_it_cannot_be_pickled() -> None:
    with pytest.raises(TypeError):
        pickle.dumps(ParsedPrivateKey.parse(ED25519))


def test_a_subclass_parses_to_itself() -> None:
    class Mine(ParsedPrivateKey):
        pass

    assert type(Mine.parse(ED25519)) is Mine


def test_importing_the_modules_does_not_load_cryptography() -> None:
    code = (
        "import sys, pie_proto.keys, pie_proto.public_keys, pie_files.keys;"
        "sys.exit(any(name.split('.')[0] in ('cryptography', 'bcrypt') for name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, timeout=30)
    assert done.returncode == 0


# --- what is refused, and how that is said ---------------------------------------------------


def refusal(text: str | bytes, passphrase: str | bytes | None = None) -> str:
    with pytest.raises(KeyFormatError) as caught:
        ParsedPrivateKey.parse(text, passphrase=passphrase)
    assert isinstance(caught.value, PieError)
    assert isinstance(caught.value, ValueError)
    return str(caught.value)


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.OpenSSH])
def test_a_short_rsa_key_is_refused_with_its_length(
    short_rsa_key: rsa.RSAPrivateKey, form: PrivateFormat
) -> None:
    said = refusal(pem_of(short_rsa_key, form))
    assert "an RSA key of 1024 bits" in said
    assert "2048 to 8192" in said
    with pytest.raises(KeyFormatError, match="1024 bits"):
        ParsedPrivateKey(short_rsa_key)


def rsa_of(p: int, q: int) -> rsa.RSAPrivateKey:
    """An RSA key of any two numbers, primes or not."""
    e = 65537
    d = pow(e, -1, (p - 1) * (q - 1))
    public = rsa.RSAPublicNumbers(e, p * q)
    crt = (rsa.rsa_crt_dmp1(d, p), rsa.rsa_crt_dmq1(d, q), rsa.rsa_crt_iqmp(p, q))
    return rsa.RSAPrivateNumbers(p, q, d, *crt, public).private_key(
        unsafe_skip_rsa_key_validation=True
    )


def test_a_long_rsa_key_is_refused_before_it_is_checked_for_minutes() -> None:
    said = refusal(pem_of(rsa_of((1 << 5000) + 1, (1 << 5001) + 1)))
    assert "an RSA key of 10002 bits" in said


def test_an_rsa_key_of_numbers_that_are_no_primes_is_refused() -> None:
    assert "damaged" in refusal(pem_of(rsa_of((1 << 1023) + 1, (1 << 1024) - 1)))


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda: dsa.generate_private_key(1024), "a key of the kind DSA"),
        (lambda: ec.generate_private_key(ec.SECP521R1()), "an ECDSA key on P-521"),
        (lambda: ec.generate_private_key(ec.SECP256K1()), "an ECDSA key on secp256k1"),
        (ed448.Ed448PrivateKey.generate, "a key of the kind Ed448"),
        (x25519.X25519PrivateKey.generate, "a key of the kind X25519"),
    ],
)
def test_other_kinds_of_keys_are_refused_by_name(make, found: str) -> None:
    said = refusal(pem_of(make()))
    assert said.startswith(f"found {found}: ")
    assert "taken are Ed25519, RSA of 2048 to 8192 bits, and ECDSA on P-256 or P-384" in said


@pytest.mark.parametrize(
    ("key_type", "found"),
    [
        (b"ssh-dss", "a DSA key"),
        (b"ecdsa-sha2-nistp521", "an ECDSA key on P-521"),
        (b"sk-ssh-ed25519@openssh.com", "hardware token (sk-ssh-ed25519@openssh.com)"),
        (b"ssh-ed25519-cert-v01@openssh.com", "a certificate"),
        (b"ssh-mldsa65", "the unknown type ssh-mldsa65"),
    ],
)
def test_other_kinds_of_openssh_keys_are_refused_by_name(key_type: bytes, found: str) -> None:
    for encrypted in ({}, {"cipher": b"aes256-ctr", "kdf": b"bcrypt"}):
        said = refusal(openssh(string(key_type) + string(b"secret stuff"), **encrypted))
        assert found in said
        assert "secret" not in said


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "the text is empty"),
        (b" \r\n\t", "the text is empty"),
        (ED25519_PUBLIC, "this is a public key (ssh-ed25519): a private key is wanted"),
        (CERTIFICATE, "this is a certificate (ssh-ed25519-cert-v01@openssh.com)"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n", "this is a public key"),
        ("-----BEGIN RSA PUBLIC KEY-----\nAAAA\n", "this is a public key"),
        ("---- BEGIN SSH2 PUBLIC KEY ----\nAAAA\n", "this is a public key"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n", "this is a certificate"),
        ("-----BEGIN PGP PRIVATE KEY BLOCK-----\n", "a PEM block called PGP PRIVATE KEY BLOCK"),
        ("-----BEGIN DSA PRIVATE KEY-----\nAAAA\n", "a PEM block called DSA PRIVATE KEY"),
        ("PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\n", "a key of PuTTY (.ppk)"),
        (b"0.\x02\x01\x000\x05\x06\x03+ep\x04\x22\x04\x20" + bytes(range(128, 160)), "binary form"),
        (f"# ada's\n{ED25519_PUBLIC} ada@host\n", "this is a public key (ssh-ed25519)"),
        (f'from="10.0.0.1" {ED25519_PUBLIC}', "this is a public key (ssh-ed25519)"),
        ("ask your ssh-agent for a key", "found no key"),
        (ED25519.encode("utf-16-le").decode("latin-1"), "in UTF-16 or UTF-32 that was read as"),
        ("~/.ssh/id_ed25519", "from_file() takes the path"),
        ("dear diary, today\nI lost my key", "found no key"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1r", "cut short"),
        (ED25519[:200], "cut short"),
        ("x" * 65_537, "65537 bytes are no private key: the most is 65536"),
        (b"x" * 65_537, "65537 bytes are no private key"),
    ],
)
def test_what_is_no_private_key_is_called_what_it_is(text: str | bytes, found: str) -> None:
    assert found in refusal(text)


@pytest.mark.parametrize(
    ("text", "private", "public"),
    [
        (ED25519, True, False),
        (ED25519_ENCRYPTED, True, False),
        (f"{ED25519_PUBLIC}\n{ED25519}", True, False),
        ("PuTTY-User-Key-File-3: ssh-ed25519\n", True, False),
        (ED25519_PUBLIC, False, True),
        ("-----BEGIN RSA PUBLIC KEY-----\n", False, True),
        ("-----BEGIN CERTIFICATE-----\n", False, False),
        ("dear diary", False, False),
        ("", False, False),
    ],
)
def test_a_text_is_known_to_have_a_private_or_a_public_key(
    text: str, private: bool, public: bool
) -> None:
    assert (has_private_key(text), has_public_key(text)) == (private, public)


@pytest.mark.parametrize(
    "text",
    [
        ED25519.replace("b3BlbnNz", "b3BlbnNz*"),
        ED25519.replace("b3BlbnNz", "b3BlbnNzé"),
        with_body(ED25519, b""),
        with_body(ED25519, b"something else altogether"),
        with_body(ED25519, body_of(ED25519)[:25]),
        with_body(ED25519, body_of(ED25519)[:-30]),
        with_body(ED25519, body_of(ED25519) + b"more"),
        openssh(string(b"a" * 32)),
        openssh(string(b"\xff" * 32)),
        openssh(string(b"ssh-ed25519") + string(b"short")),
        openssh(string(b"ecdsa-sha2-nistp256") + string(b"nistp256") + string(b"\2" + bytes(32))),
        "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----",
        "-----BEGIN EC PRIVATE KEY-----\nAé==\n-----END EC PRIVATE KEY-----",
    ],
)
def test_a_damaged_key_is_called_damaged(text: str) -> None:
    assert re.search("damaged|cut short", refusal(text))


def test_a_key_whose_two_halves_are_strangers_is_refused() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = pem_of(key, PrivateFormat.OpenSSH)
    scalar = key.private_numbers().private_value.to_bytes(32, "big")
    other = scalar[:31] + bytes([scalar[31] ^ 1])
    assert scalar in body_of(pem)
    said = refusal(with_body(pem, body_of(pem).replace(scalar, other)))
    assert "its two halves do not belong together" in said


@pytest.mark.parametrize("keys", [0, 2])
def test_an_openssh_container_holds_one_key(keys: int) -> None:
    blob = PublicKey.parse(ED25519_PUBLIC).blob
    assert f"found {keys} private keys in one" in refusal(openssh(blob, keys=keys))


def encrypted_samples() -> list[str]:
    p256 = ec.generate_private_key(ec.SECP256R1())
    return [
        ED25519_ENCRYPTED,
        pem_of(p256, PrivateFormat.PKCS8, b"correct horse"),
        pem_of(p256, PrivateFormat.TraditionalOpenSSL, b"correct horse"),
    ]


@pytest.mark.parametrize("passphrase", [None, "", b""])
def test_an_encrypted_key_wants_a_passphrase(passphrase: str | bytes | None) -> None:
    for text in encrypted_samples():
        assert "encrypted: passphrase= is wanted" in refusal(text, passphrase)


@pytest.mark.parametrize("passphrase", ["battery staple", b"\0\xff", "x" * 5000])
def test_a_wrong_passphrase_is_said_to_be_wrong_and_not_repeated(passphrase: str | bytes) -> None:
    for text in encrypted_samples():
        said = refusal(text, passphrase)
        assert said == "the passphrase is wrong, or the private key is damaged"


def test_a_passphrase_that_is_no_text_is_refused() -> None:
    assert "passphrase" in refusal(ED25519_ENCRYPTED, "\ud800")


def test_an_encrypted_openssh_key_without_bcrypt_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "bcrypt", None)
    assert "pip install 'pie-anyio[ssh]'" in refusal(ED25519_ENCRYPTED, PASSPHRASE)
    assert ParsedPrivateKey.parse(ED25519).key_type == "ssh-ed25519"


def test_a_cipher_that_is_not_known_comes_with_the_command_that_changes_it() -> None:
    assert "ssh-keygen -p -Z aes256-ctr" in refusal(ED25519_AES128, PASSPHRASE)


@pytest.mark.parametrize(
    "headers",
    [
        "Proc-Type: 4,ENCRYPTED\nDEK-Info: RC2-CBC,0011223344556677",
        # Ten bytes of sixteen, the way that makes the Rust code of cryptography 50 panic.
        "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00112233445566778899",
        "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC," + "00" * 16 + "\nDEK-Info: AES-256-CBC,00",
        "Comment: not encrypted at all",
    ],
)
def test_headers_that_tell_of_no_known_cipher_are_refused(headers: str) -> None:
    text = f"-----BEGIN EC PRIVATE KEY-----\n{headers}\n\nAAAA\n-----END EC PRIVATE KEY-----\n"
    assert "encrypted in a way that is not known here" in refusal(text, "secret")


def test_a_curve_or_cipher_that_the_library_does_not_know_is_refused() -> None:
    key = pem_of(ec.generate_private_key(ec.SECP256R1()))
    prime256v1, sect283k1 = bytes.fromhex("06082a8648ce3d030107"), bytes.fromhex("06052b81040010")
    body = body_of(key)
    at = body.index(prime256v1)
    body = body.replace(prime256v1, sect283k1)
    # The lengths of the two sequences around the name of the curve, three bytes shorter.
    body = bytes([body[0], body[1], body[2] - 3]) + body[3:]
    outer = at - 10
    body = body[:outer] + bytes([body[outer] - 3]) + body[outer + 1 :]
    # Before version 45, `cryptography` does not distinguish an unknown curve from damage.
    said = refusal(with_body(key, body))
    assert "that is not known here: taken are" in said or "is damaged or cut short" in said


@pytest.mark.parametrize("rounds", [0, 4097, 2**32 - 1])
def test_a_key_that_asks_for_years_of_work_is_refused(rounds: int) -> None:
    blob = PublicKey.parse(ED25519_PUBLIC).blob
    said = refusal(openssh(blob, cipher=b"aes256-ctr", kdf=b"bcrypt", rounds=rounds), "secret")
    assert f"asks for {rounds} rounds of bcrypt" in said


@pytest.mark.parametrize("text", [None, 5, bytearray(ED25519.encode()), ["a"]])
def test_a_text_of_another_type_is_a_type_error(text: object) -> None:
    with pytest.raises(TypeError, match=type(text).__name__):
        ParsedPrivateKey.parse(text)  # type: ignore[arg-type]


def test_a_passphrase_of_another_type_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="int"):
        ParsedPrivateKey.parse(ED25519, passphrase=5)  # type: ignore[arg-type]


# --- whatever comes in -----------------------------------------------------------------------


def answers(text: str | bytes, passphrase: str | bytes | None = None) -> None:
    """Parse: either a key that can sign, or a `KeyFormatError` that repeats nothing of the text."""
    try:
        parsed = ParsedPrivateKey.parse(text, passphrase=passphrase)
    except KeyFormatError as error:
        plain = text.decode("latin-1") if isinstance(text, bytes) else text
        inside = plain.partition("KEY-----")[2].partition("-----END")[0]
        for word in re.findall("[A-Za-z0-9+/=]{10,}", str(error)):
            assert word not in inside
    else:
        signature = parsed.sign(CHALLENGE)
        assert PublicKey.parse(parsed.public_key()).verify(CHALLENGE, signature)


@given(text=st.text() | st.binary(), passphrase=st.none() | st.text() | st.binary())
@example(text="-----BEGIN PRIVATE KEY----------END PRIVATE KEY-----", passphrase=None)
@example(
    text="\ud800-----BEGIN PRIVATE KEY-----\ud800-----END PRIVATE KEY-----", passphrase="\ud800"
)
@settings(max_examples=200, deadline=None)
def test_no_text_makes_it_raise_anything_else(
    text: str | bytes, passphrase: str | bytes | None
) -> None:
    answers(text, passphrase)


P384_SEC1 = pem_of(ec.generate_private_key(ec.SECP384R1()), PrivateFormat.TraditionalOpenSSL)
P256_ENCRYPTED = pem_of(
    ec.generate_private_key(ec.SECP256R1()), PrivateFormat.TraditionalOpenSSL, b"correct horse"
)


# Version 2 of PKCS#8, with the public key in it.
P256_VERSION_2 = VERSION_2["P-256"].pem()


@given(
    pem=st.sampled_from(
        [P256_VERSION_2, ED25519, P256, P384_SEC1, P256_ENCRYPTED, ED25519_ENCRYPTED]
    ),
    at=st.floats(0, 1),
    cut=st.integers(0, 12),
    put=st.binary(max_size=12),
    deep=st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_no_mutated_key_makes_it_raise_anything_else(
    pem: str, at: float, cut: int, put: bytes, deep: bool
) -> None:
    # The passphrase goes to the one whose work the mutation cannot make longer.
    passphrase = PASSPHRASE if pem is P256_ENCRYPTED else None
    if deep and pem is not P256_ENCRYPTED:
        body = body_of(pem)
        index = int(at * len(body))
        answers(with_body(pem, body[:index] + put + body[index + cut :]), passphrase)
    else:
        raw = pem.encode()
        index = int(at * len(raw))
        answers(raw[:index] + put + raw[index + cut :], passphrase)


# --- public keys -----------------------------------------------------------------------------


def test_a_public_key_knows_the_signatures_of_its_private_key(key: PrivateKey) -> None:
    public = PublicKey.parse(line_of(key))
    signature = ParsedPrivateKey(key).sign(CHALLENGE)
    assert public.verify(CHALLENGE, signature)
    assert not public.verify(CHALLENGE + b"!", signature)
    assert not public.verify(CHALLENGE, signature[:-1])
    assert not public.verify(CHALLENGE, signature + b"\0")
    assert not public.verify(CHALLENGE, b"")
    assert not public.verify(CHALLENGE, bytes(len(signature)))
    stranger = ParsedPrivateKey(ed25519.Ed25519PrivateKey.generate())
    assert not public.verify(CHALLENGE, stranger.sign(CHALLENGE))


def test_a_signature_over_the_wrong_digest_is_a_wrong_one(rsa_key: rsa.RSAPrivateKey) -> None:
    public = PublicKey.of(rsa_key.public_key())
    assert not public.verify(
        CHALLENGE, rsa_key.sign(CHALLENGE, padding.PKCS1v15(), hashes.SHA512())
    )
    p384 = ec.generate_private_key(ec.SECP384R1())
    assert not PublicKey.of(p384.public_key()).verify(
        CHALLENGE, p384.sign(CHALLENGE, ec.ECDSA(hashes.SHA256()))
    )


@pytest.mark.parametrize(
    "public",
    [
        PublicKey.parse(ED25519_PUBLIC),
        PublicKey.parse(ParsedPrivateKey.parse(P256).public_key()),
        PublicKey(string(b"ssh-ed25519") + string(b"\xff" * 32)),  # no point of the curve
        # An exponent of 70 bits, which OpenSSL does not work with above 3072 bits.
        PublicKey.of(rsa.RSAPublicNumbers((1 << 70) + 1, (1 << 4095) + 1).public_key()),
    ],
    ids=["ed25519", "p256", "no point", "odd rsa"],
)
@given(signature=st.binary(max_size=80) | st.just(b"\1" * 512))
@settings(max_examples=50, deadline=None)
def test_no_signature_makes_verify_raise(public: PublicKey, signature: bytes) -> None:
    assert public.verify(CHALLENGE, signature) is False


def test_a_line_has_a_type_a_key_and_a_comment() -> None:
    public = PublicKey.parse(f"  {ED25519_PUBLIC}\t throw-away  sample \r\n")
    assert public.key_type == "ssh-ed25519"
    assert public.comment == "throw-away  sample"
    assert public.fingerprint() == ED25519_FINGERPRINT
    assert public.line() == ED25519_PUBLIC
    assert repr(public) == f"<PublicKey ssh-ed25519 {ED25519_FINGERPRINT} 'throw-away  sample'>"


def test_a_line_without_a_comment_has_an_empty_one() -> None:
    public = PublicKey.parse(ED25519_PUBLIC)
    assert public.comment == ""
    assert repr(public) == f"<PublicKey ssh-ed25519 {ED25519_FINGERPRINT}>"


def test_public_keys_are_values_and_comments_do_not_count() -> None:
    one, two = PublicKey.parse(ED25519_PUBLIC), PublicKey.parse(f"{ED25519_PUBLIC} laptop")
    assert {one} == {two}
    assert pickle.loads(pickle.dumps(two)).comment == "laptop"


@pytest.mark.parametrize("form", [PublicFormat.SubjectPublicKeyInfo, PublicFormat.PKCS1])
def test_a_pem_public_key_is_the_same_key(rsa_key: rsa.RSAPrivateKey, form: PublicFormat) -> None:
    pem = rsa_key.public_key().public_bytes(Encoding.PEM, form).decode()
    assert PublicKey.parse(pem.replace("\n", "\r\n  ")).line() == line_of(rsa_key)


def public_refusal(line: str) -> str:
    with pytest.raises(KeyFormatError) as caught:
        PublicKey.parse(line)
    return str(caught.value)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("", "the text is empty"),
        ("let me in", "found no public key"),
        ("AAAAC3NzaC1lZDI1NTE5AAAAINybT2c8Tm5TrgT5", "found no public key"),
        (f"no-pty {ED25519_PUBLIC}", "options before the key"),
        (f'from="10.0.0.1, 10.0.0.2" {ED25519_PUBLIC} me', "options before the key"),
        ("ssh-ed25519", "nothing follows ssh-ed25519"),
        ("ssh-ed25519 ****", "not base64"),
        ("ssh-ed25519 é", "not base64"),
        ("ssh-ed25519 AAAA", "cut short"),
        ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5", "the ssh-ed25519 key is damaged"),
        (ED25519_PUBLIC.replace("ssh-ed25519 ", "ssh-rsa "), "says ssh-rsa, but its key is ssh-ed"),
        (f"{ED25519_PUBLIC} me\n{ED25519_PUBLIC} too", "more than one line"),
        (f"{ED25519_PUBLIC} me\r{ED25519_PUBLIC} too", "more than one line"),
        (DSA_PUBLIC, "found a DSA key"),
        (P521_PUBLIC, "found an ECDSA key on P-521"),
        (CERTIFICATE, "found a certificate"),
        (ED25519, "this is a private key: the public one is wanted"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", "a PEM block called CERT"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "the public key is damaged"),
        ("-----BEGIN PUBLIC KEY-----\né\n-----END PUBLIC KEY-----", "characters outside ASCII"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n", "cut short"),
        (f"{ED25519_PUBLIC} {'x' * 65_536}", "characters are no key"),
    ],
)
def test_what_is_no_public_key_is_called_what_it_is(line: str, found: str) -> None:
    assert found in public_refusal(line)


@pytest.mark.parametrize("bits", [1024, 2047, 8193])
def test_a_public_rsa_key_has_the_same_bounds(bits: int) -> None:
    key = rsa.RSAPublicNumbers(65537, (1 << (bits - 1)) + 1).public_key()
    line = key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    assert f"an RSA key of {bits} bits" in public_refusal(line)


@pytest.mark.parametrize("bits", [2048, 8192])
def test_the_bounds_of_rsa_are_within_what_is_taken(bits: int) -> None:
    key = rsa.RSAPublicNumbers(65537, (1 << (bits - 1)) + 1).public_key()
    assert PublicKey.of(key).key_type == "ssh-rsa"


@pytest.mark.parametrize("blob", [b"", b"\0\0", string(b""), string(b"ssh-ed25519")])
def test_a_blob_that_is_no_key_makes_no_public_key(blob: bytes) -> None:
    with pytest.raises(KeyFormatError):
        PublicKey(blob)


@given(line=st.text() | st.text().map(lambda text: f"ssh-ed25519 {text}"))
@settings(max_examples=200, deadline=None)
def test_no_line_makes_it_raise_anything_else(line: str) -> None:
    with pytest.raises(KeyFormatError):
        PublicKey.parse(line)


@given(at=st.integers(0, 51), put=st.binary(max_size=4), cut=st.integers(0, 4))
@settings(max_examples=100, deadline=None)
def test_no_mutated_public_key_makes_it_raise_anything_else(at: int, put: bytes, cut: int) -> None:
    blob = PublicKey.parse(ED25519_PUBLIC).blob
    try:
        public = PublicKey(blob[:at] + put + blob[at + cut :])
    except KeyFormatError:
        return
    assert PublicKey.parse(public.line()) == public


def test_an_authorized_keys_file_gives_its_keys_in_order() -> None:
    p256 = ParsedPrivateKey.parse(P256).public_key()
    text = f"# who may\r\n\r\n{ED25519_PUBLIC} one\u2028line\r\n   # not you\n\t{p256} two\n"
    keys = parse_authorized_keys(text)
    assert [key.comment for key in keys] == ["one\u2028line", "two"]
    assert [key.line() for key in keys] == [ED25519_PUBLIC, p256]
    assert parse_authorized_keys("") == ()


def test_an_authorized_keys_file_tells_the_line_that_is_wrong() -> None:
    with pytest.raises(KeyFormatError, match=r"^line 3: found a DSA key"):
        parse_authorized_keys(f"# one\n{ED25519_PUBLIC}\n{DSA_PUBLIC}\n")
