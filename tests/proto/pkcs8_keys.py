"""PKCS#8 keys of version 2 (RFC 5958), put together by hand: no library here writes them."""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC
from cryptography.hazmat.primitives.padding import PKCS7
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

__all__ = ["NAME", "VERSION_2", "Version2", "der", "encrypted", "pem"]


def der(tag: int, *parts: bytes) -> bytes:
    """One value of DER."""
    content = b"".join(parts)
    length = len(content)
    if length < 128:
        return bytes([tag, length]) + content
    size = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([tag, 128 + len(size)]) + size + content


def pem(data: bytes, label: str = "PRIVATE KEY") -> str:
    """DER as PEM."""
    return f"-----BEGIN {label}-----\n{base64.b64encode(data).decode()}\n-----END {label}-----\n"


def oid(text: str) -> bytes:
    return der(0x06, bytes.fromhex(text))


NAME = der(0xA0, der(0x30, oid("2a864886f70d010914"), der(0x31, der(0x0C, b"a key"))))
"""Attributes: a friendly name."""


@dataclass(frozen=True)
class Version2:
    """A key, as the parts that such a file has."""

    key: Any
    algorithm: bytes
    private: bytes
    public: bytes

    def der(
        self,
        *,
        version: bytes = b"\1",
        attributes: bytes = b"",
        public: bytes | None = None,
        more: bytes = b"",
    ) -> bytes:
        """The file; ``public`` is in place of the public key of its own, with its tag."""
        own = der(0x81, b"\0", self.public)
        return der(
            0x30,
            der(0x02, version),
            self.algorithm,
            der(0x04, self.private),
            attributes,
            own if public is None else public,
            more,
        )

    def pem(self, **options: Any) -> str:
        """The same as PEM."""
        return pem(self.der(**options))


def _ed25519() -> Version2:
    key = ed25519.Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes_raw()
    return Version2(key, der(0x30, oid("2b6570")), der(0x04, key.private_bytes_raw()), public)


def _rsa() -> Version2:
    key = rsa.generate_private_key(65537, 2048)
    private = key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.PKCS1)
    return Version2(key, der(0x30, oid("2a864886f70d010101"), b"\5\0"), private, public)


def _ec(curve: ec.EllipticCurve, name: str) -> Version2:
    key = ec.generate_private_key(curve)
    private = key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    public = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return Version2(key, der(0x30, oid("2a8648ce3d0201"), oid(name)), private, public)


VERSION_2 = {
    "Ed25519": _ed25519(),
    "RSA": _rsa(),
    "P-256": _ec(ec.SECP256R1(), "2a8648ce3d030107"),
    "P-384": _ec(ec.SECP384R1(), "2b81040022"),
}
"""A key of each kind that is taken."""


def encrypted(data: bytes, passphrase: bytes, *, triple_des: bool = False) -> bytes:
    """What OpenSSL would make of it: PBES2 with PBKDF2 and AES-256, or formerly Triple DES."""
    salt, rounds = os.urandom(8), 2048
    size, length, name = (
        (8, 24, "2a864886f70d0307") if triple_des else (16, 32, "60864801650304012a")
    )
    key = PBKDF2HMAC(SHA256(), length, salt, rounds).derive(passphrase)
    vector = os.urandom(size)
    algorithm = TripleDES(key) if triple_des else algorithms.AES(key)
    padder = PKCS7(size * 8).padder()
    encryptor = Cipher(algorithm, modes.CBC(vector)).encryptor()
    content = encryptor.update(padder.update(data) + padder.finalize()) + encryptor.finalize()
    digest = der(0x30, oid("2a864886f70d0209"), b"\5\0")
    numbers = der(0x30, der(0x04, salt), der(0x02, rounds.to_bytes(2, "big")), digest)
    derivation = der(0x30, oid("2a864886f70d01050c"), numbers)
    cipher = der(0x30, oid(name), der(0x04, vector))
    scheme = der(0x30, oid("2a864886f70d01050d"), der(0x30, derivation, cipher))
    return der(0x30, scheme, der(0x04, content))
