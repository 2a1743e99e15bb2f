"""PKCS#8 keys that have more than the private key in them: made what `cryptography` reads.

Version 2 (RFC 5958) has the public key beside the private one, and either version may have
attributes. `cryptography` reads neither, so both are taken out here. What is no such key, and what
is damaged, is left as it is: `cryptography` judges it.
"""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

__all__ = ["Parts", "decrypted", "parts_of"]

# Tags and object identifiers, as DER has them.
_INTEGER, _BITS, _OCTETS, _NULL, _OID, _SEQUENCE = 0x02, 0x03, 0x04, 0x05, 0x06, 0x30
_ATTRIBUTES, _PUBLIC, _PUBLIC_EXPLICIT = 0xA0, 0x81, 0xA1
_PBES2: Final = bytes.fromhex("2a864886f70d01050d")
_PBKDF2: Final = bytes.fromhex("2a864886f70d01050c")
_SCRYPT: Final = bytes.fromhex("2b06010401da47040b")
_HMAC: Final = {
    bytes.fromhex("2a864886f70d0207"): "sha1",
    bytes.fromhex("2a864886f70d0208"): "sha224",
    bytes.fromhex("2a864886f70d0209"): "sha256",
    bytes.fromhex("2a864886f70d020a"): "sha384",
    bytes.fromhex("2a864886f70d020b"): "sha512",
}
_AES_CBC: Final = {
    bytes.fromhex("608648016503040102"): 16,
    bytes.fromhex("608648016503040116"): 24,
    bytes.fromhex("60864801650304012a"): 32,
}
_SCRYPT_BYTES: Final = 256 * 1024 * 1024
"""The most memory that a key may ask for: 16 times what OpenSSL writes."""


class Parts(NamedTuple):
    """What stands in a PKCS#8 key."""

    version: int
    private: bytes
    """The key without the rest, as version 1 (DER)."""
    public: bytes | None
    """The public key, in the form that belongs to its kind; ``None`` if it is not there."""
    is_plain: bool
    """Whether the key has no more than the private key, as version 1, so that nothing is gained."""


def parts_of(der: bytes) -> Parts | None:
    """The parts of an unencrypted key; ``None`` for anything else, and if it is damaged."""
    try:
        body = _whole(der, _SEQUENCE)
        version, rest = _take(body, _INTEGER)
        algorithm, rest = _take(rest, _SEQUENCE)
        key, rest = _take(rest, _OCTETS)
        public: bytes | None = None
        is_plain = version == b"\0" and not rest
        if rest[:1] == bytes([_ATTRIBUTES]):
            _, rest = _take(rest, _ATTRIBUTES)
        if rest[:1] == bytes([_PUBLIC]):
            public, rest = _take(rest, _PUBLIC)
        elif rest[:1] == bytes([_PUBLIC_EXPLICIT]):  # as some libraries write it
            inner, rest = _take(rest, _PUBLIC_EXPLICIT)
            public = _whole(inner, _BITS)
        if rest or len(version) != 1 or (public is not None and public[:1] != b"\0"):
            return None
    except ValueError:
        return None
    fields = _put(_INTEGER, b"\0") + _put(_SEQUENCE, algorithm) + _put(_OCTETS, key)
    # The first byte of a bit string counts the bits that its last byte does not use.
    bits = None if public is None else public[1:]
    return Parts(version[0] + 1, _put(_SEQUENCE, fields), bits, is_plain)


def decrypted(der: bytes, passphrase: bytes) -> bytes | None:
    """What an encrypted key decrypts to; ``None`` if it is in no way known here, or is damaged.

    Known is PBES2 (RFC 8018) with AES-CBC, and as the key derivation PBKDF2 or scrypt: all that
    OpenSSL has written since version 1.1, unless told otherwise.
    """
    from cryptography.hazmat.primitives.ciphers import (  # noqa: PLC0415 - loads cryptography
        Cipher,
        algorithms,
        modes,
    )
    from cryptography.hazmat.primitives.padding import PKCS7  # noqa: PLC0415 - as above

    try:
        scheme, rest = _take(_whole(der, _SEQUENCE), _SEQUENCE)
        content = _whole(rest, _OCTETS)
        kind, rest = _take(scheme, _OID)
        derivation, rest = _take(_whole(rest, _SEQUENCE), _SEQUENCE)
        cipher, vector = _take(_whole(rest, _SEQUENCE), _OID)
        if kind != _PBES2:
            return None
        key = _derived(derivation, passphrase, _AES_CBC[cipher])
        mode = modes.CBC(_whole(vector, _OCTETS))
        decryptor = Cipher(algorithms.AES(key), mode).decryptor()
        unpadder = PKCS7(128).unpadder()
        padded = decryptor.update(content) + decryptor.finalize()
        return unpadder.update(padded) + unpadder.finalize()
    except (ValueError, KeyError, OverflowError, MemoryError):
        return None


def _derived(derivation: bytes, passphrase: bytes, length: int) -> bytes:
    kind, rest = _take(derivation, _OID)
    salt, rest = _take(_whole(rest, _SEQUENCE), _OCTETS)
    numbers = []
    while rest[:1] == bytes([_INTEGER]):
        number, rest = _take(rest, _INTEGER)
        numbers.append(int.from_bytes(number, "big"))
    if kind == _SCRYPT:
        cost, block, parallel = numbers[:3]
        return hashlib.scrypt(
            passphrase, salt=salt, n=cost, r=block, p=parallel, maxmem=_SCRYPT_BYTES, dklen=length
        )
    if kind != _PBKDF2 or not numbers:
        raise ValueError("an unknown way to derive a key")
    digest = "sha1" if not rest else _HMAC[_take(_whole(rest, _SEQUENCE), _OID)[0]]
    return hashlib.pbkdf2_hmac(digest, passphrase, salt, numbers[0], length)


def _take(data: bytes, tag: int) -> tuple[bytes, bytes]:
    """Split the first value, which has this tag, from ``data``. Raises `ValueError`."""
    if len(data) < 2 or data[0] != tag:
        raise ValueError("another value is there")
    start, length = 2, data[1]
    if length > 0x7F:
        start += length - 0x80
        length = int.from_bytes(data[2:start], "big")
        if length <= 0x7F or data[2] == 0:
            raise ValueError("a length is written longer than it is in DER")
    if start + length > len(data):
        raise ValueError("it is cut short")
    return data[start : start + length], data[start + length :]


def _whole(data: bytes, tag: int) -> bytes:
    """The one value that ``data`` is. Raises `ValueError`."""
    value, rest = _take(data, tag)
    if rest:
        raise ValueError("more follows")
    return value


def _put(tag: int, value: bytes) -> bytes:
    size = len(value)
    if size <= 0x7F:
        return bytes([tag, size]) + value
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 + len(length)]) + length + value
