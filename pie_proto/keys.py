"""Keys that answer a server's challenge: `Signer`, and `ParsedPrivateKey` read from a text.

No file is opened here (`pie_files.keys` adds ``from_file``), and `cryptography` is imported by the
first call that needs it, which takes some tens of milliseconds.
"""

# ruff: noqa: PLC0415 - importing this module must not load cryptography

from __future__ import annotations

import base64
import re
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, Self, runtime_checkable

from pie_proto import pkcs8
from pie_proto.errors import KeyFormatError, LocalProtocolError
from pie_proto.key_text import found_instead, text_of
from pie_proto.public_keys import (
    MAX_KEY_BYTES,
    PEM_BEGIN,
    TAKEN,
    PublicKey,
    pem,
    pem_body,
    refused,
    scheme,
    take_string,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

__all__ = [
    "KEY_NOT_USED",
    "ParsedPrivateKey",
    "Signer",
    "check_signer",
]

MAX_KDF_ROUNDS: Final = 4096
"""The most rounds of bcrypt that an OpenSSH key may ask for: some 35 seconds of work.
``ssh-keygen`` writes 16 to 24, careful people a few hundred; a damaged number may mean a year."""

_CONTAINERS: Final = {
    "OPENSSH PRIVATE KEY",
    "PRIVATE KEY",  # PKCS#8
    "ENCRYPTED PRIVATE KEY",  # PKCS#8
    "RSA PRIVATE KEY",  # PKCS#1
    "EC PRIVATE KEY",  # SEC1
}
_FORMS: Final = "as OpenSSH, PKCS#8, PKCS#1 or SEC1 (EC) text"
_ENCRYPTED_BODY: Final = re.compile(
    r"Proc-Type: *4,ENCRYPTED\n"
    r"DEK-Info: *(?:AES-[0-9]+-CBC,[0-9A-Fa-f]{32}|DES-EDE3-CBC,[0-9A-Fa-f]{16})\n\n[^:]+"
)
"""An encrypted PKCS#1 or SEC1 key (RFC 1421): headers that tell the cipher and its initial vector,
then the key. Looked at here because an initial vector that is too short makes `cryptography` 50
panic, and what comes of that is no ``Exception``."""
_UNKNOWN_CIPHER: Final = (
    "the key is encrypted in a way that is not known here: "
    "`ssh-keygen -p -Z aes256-ctr -f FILE` encrypts it anew"
)
_OPENSSH_MAGIC: Final = b"openssh-key-v1\0"
_DAMAGED: Final = "the private key is damaged or cut short"
_STRANGERS: Final = "the private key is damaged: its two halves do not belong together"
_NOT_VERSION_1: Final = (
    "what the passphrase decrypts is no private key of PKCS#8 version 1, and version 2 is not "
    "supported with this encryption: have it written as version 1, or encrypted with AES"
)


@runtime_checkable
class Signer(Protocol):
    """Anything that can answer a challenge: a key, an agent, a smart card, a KMS.

    ``sign`` gets the raw bytes of the challenge (1 to 64 of them) and gives the raw signature over
    them, in the form that the server verifies for the type of the key (docs/protocol.md,
    "Authentication", step 4):

    - Ed25519: 64 bytes;
    - RSA: PKCS#1 v1.5 over SHA-256, as long as the key;
    - ECDSA: ASN.1 DER, over SHA-256 for P-256 and over SHA-384 for P-384.

    It may be a plain method, which may block (a token that waits for a touch). A driver with an
    event loop calls it in a worker thread, where no context variable is set. A cancelled caller
    does not wait for that thread, which ends by itself; its signature is dropped. Or it may be an
    ``async def``, which such a driver calls and awaits in the event loop. One protocol says both,
    since only the caller can tell them apart: ``inspect.iscoroutinefunction(signer.sign)`` before
    the call. If a plain method returns an awaitable, the driver awaits that in the event loop. A
    blocking driver takes plain methods only.
    What ``sign`` raises ends the authentication, and reaches the caller as it is.
    """

    def sign(self, challenge: bytes, /) -> bytes | Awaitable[bytes]:
        """The raw signature over the raw ``challenge``."""


KEY_NOT_USED: Final = (
    "the server asks for no proof of who its users are: the private key given to authenticate() "
    "was not used, and anybody who reaches the server can be any user"
)
"""What is said once of a key that proves nothing."""


def check_signer(private_key: Signer | None) -> None:
    """Raise `LocalProtocolError` for what cannot sign; giving nothing is right."""
    if private_key is not None and not isinstance(private_key, Signer):
        raise LocalProtocolError(
            f"private_key must have a method sign(challenge): {type(private_key).__name__}"
        )


class ParsedPrivateKey:
    """A private key, ready to sign: a `Signer`. Made by `parse`, or from a key of `cryptography`.

    Raises `KeyFormatError` for a key of a kind that Pie does not take. Safe to share between
    threads; cannot be pickled; what it shows of itself is the type and the fingerprint.
    """

    __slots__ = ("_key", "_public")

    def __init__(self, key: Ed25519PrivateKey | RSAPrivateKey | EllipticCurvePrivateKey) -> None:
        self._public = PublicKey.of(key.public_key())
        self._key: Any = key

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.key_type} {self.fingerprint()}>"

    @classmethod
    def parse(cls, text: str | bytes, *, passphrase: str | bytes | None = None) -> Self:
        """The private key in ``text``: OpenSSH, PKCS#8, PKCS#1 or SEC1, encrypted or not.

        Taken are Ed25519, RSA of 2048 to 8192 bits, and ECDSA on P-256 or P-384. Of a text with
        several blocks it is the first private key; whatever stands around it, its indentation and
        its line ends do not matter. ``bytes`` may be UTF-8, UTF-16 or UTF-32, with or without a
        byte order mark. At most 64 KiB are looked at. The public key in a PKCS#8 key of version 2
        has to belong to the private one.

        A ``passphrase`` is used if the key is encrypted, and not needed, thus not looked at, if it
        is not; an empty one is none. An encrypted OpenSSH key needs the package ``bcrypt``, which
        the extra ``pie-anyio[ssh]`` brings, and takes as long as its rounds want: a tenth of a
        second for what ``ssh-keygen`` writes. Do that in a worker thread if there is an event loop.

        Raises `KeyFormatError`, which says what was found and what is taken and repeats nothing
        that might be secret, for every ``str`` or ``bytes`` that is anything else; `TypeError` for
        arguments of other types.
        """
        if not isinstance(text, str | bytes):
            raise TypeError(f"a private key is str or bytes, not {type(text).__name__}")
        secret = _passphrase(passphrase)
        if len(text) > MAX_KEY_BYTES:
            raise KeyFormatError(
                f"{len(text)} bytes are no private key: the most is {MAX_KEY_BYTES}"
            )
        if isinstance(text, bytes):
            text = text_of(text)
        begins = list(PEM_BEGIN.finditer(text))
        begin = next((begin for begin in begins if begin[1] in _CONTAINERS), None)
        if begin is None:
            raise KeyFormatError(
                f"{found_instead(text)}: a private key is wanted {_FORMS}; {TAKEN}"
            )
        body = pem_body(text, begin)
        if begin[1] == "OPENSSH PRIVATE KEY":
            return cls(_load_openssh(body, secret))
        return cls(_load_pem(begin[1], body, secret))

    @property
    def key_type(self) -> str:
        """``ssh-ed25519``, ``ssh-rsa``, ``ecdsa-sha2-nistp256`` or ``ecdsa-sha2-nistp384``."""
        return self._public.key_type

    def sign(self, challenge: bytes) -> bytes:
        """The raw signature over ``challenge``, as `Signer` tells. Some milliseconds for RSA."""
        signature: bytes = self._key.sign(challenge, *scheme(self.key_type))
        return signature

    def public_key(self) -> str:
        """The public half: one OpenSSH ``authorized_keys`` line, no comment, no line end."""
        return self._public.line()

    def fingerprint(self) -> str:
        """``SHA256:`` and 43 characters of base64, as ``ssh-keygen -l`` prints it."""
        return self._public.fingerprint()


def _passphrase(passphrase: str | bytes | None) -> bytes | None:
    match passphrase:
        case None | bytes():
            return passphrase or None
        case str():
            try:
                return passphrase.encode("utf-8") or None
            except UnicodeEncodeError:
                raise KeyFormatError(
                    "the passphrase has characters that no text has (lone surrogates)"
                ) from None
        case _:
            raise TypeError(f"a passphrase is str or bytes, not {type(passphrase).__name__}")


class _OpenSSHHeader(NamedTuple):
    """What an OpenSSH key says in the clear (PROTOCOL.key of OpenSSH)."""

    encrypted: bool
    public: PublicKey

    @classmethod
    def parse(cls, body: str) -> Self:
        try:
            data = base64.b64decode("".join(body.split()), validate=True)
        except ValueError:
            raise KeyFormatError(_DAMAGED) from None
        if not data.startswith(_OPENSSH_MAGIC):
            raise KeyFormatError(_DAMAGED)
        cipher, data = take_string(data.removeprefix(_OPENSSH_MAGIC))
        kdf, data = take_string(data)
        options, data = take_string(data)
        keys, data = int.from_bytes(data[:4], "big"), data[4:]
        if keys != 1:
            raise KeyFormatError(f"found {keys} private keys in one: exactly 1 is taken")
        blob, _ = take_string(data)
        if kdf == b"bcrypt":
            _salt, count = take_string(options)
            rounds = int.from_bytes(count[:4], "big")
            if not 0 < rounds <= MAX_KDF_ROUNDS:
                raise KeyFormatError(
                    f"the key asks for {rounds} rounds of bcrypt: 1 to {MAX_KDF_ROUNDS} are taken"
                )
        # Making this refuses what is not taken before a passphrase is asked for, and before an RSA
        # key of absurd length is checked for being prime.
        return cls(cipher != b"none", PublicKey(blob))


def _load_openssh(body: str, passphrase: bytes | None) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    header = _OpenSSHHeader.parse(body)
    if header.encrypted:
        _want_passphrase(passphrase)
        _want_bcrypt()
    data = pem("OPENSSH PRIVATE KEY", body)
    try:
        key = load_ssh_private_key(data, passphrase if header.encrypted else None)
        whole = PublicKey.of(key.public_key()) == header.public
    except UnsupportedAlgorithm:
        raise KeyFormatError(_UNKNOWN_CIPHER) from None
    except Exception as error:  # noqa: BLE001 - ValueError, TypeError, struct.error, KeyError, …
        raise _not_read(header.encrypted, error) from None
    if not whole:  # which cryptography does not look at
        raise KeyFormatError(_STRANGERS)
    return key


def _load_pem(label: str, body: str, passphrase: bytes | None) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm

    with_headers = ":" in body
    encrypted = with_headers or label.startswith("ENCRYPTED")
    if with_headers and not _ENCRYPTED_BODY.fullmatch(body):
        raise KeyFormatError(_UNKNOWN_CIPHER)
    if encrypted:
        _want_passphrase(passphrase)
    data = pem(label, body)
    try:
        if label == "PRIVATE KEY" and (parts := _more_than_private(_der(body))) is not None:
            return _load_parts(parts)
        try:
            return _load_checked(data, passphrase if encrypted else None)
        except ValueError as error:
            if not label.startswith("ENCRYPTED") or isinstance(error, KeyFormatError):
                raise
            decrypted = pkcs8.decrypted(_der(body), passphrase or b"")
            if decrypted is None and "ncorrect password" not in str(error):
                raise KeyFormatError(_NOT_VERSION_1) from None
            if decrypted is None or (parts := _more_than_private(decrypted)) is None:
                raise
            return _load_parts(parts)
    except KeyFormatError:
        raise
    except UnsupportedAlgorithm:
        raise refused("a kind of key, or a way of encrypting one, that is not known here") from None
    except Exception as error:  # noqa: BLE001 - as above
        raise _not_read(encrypted, error) from None


def _load_checked(data: bytes, passphrase: bytes | None) -> Any:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    # Checking an RSA key of 16384 bits takes 40 s: it is done once the size has been seen.
    key = load_pem_private_key(data, passphrase, unsafe_skip_rsa_key_validation=True)
    PublicKey.of(key.public_key())
    if isinstance(key, RSAPrivateKey):
        return key.private_numbers().private_key()
    return key


def _der(body: str) -> bytes:
    return base64.b64decode("".join(body.split()), validate=True)


def _more_than_private(der: bytes) -> pkcs8.Parts | None:
    parts = pkcs8.parts_of(der)
    return None if parts is None or parts.is_plain else parts


def _load_parts(parts: pkcs8.Parts) -> Any:
    if parts.version > 2:
        raise KeyFormatError(f"found PKCS#8 version {parts.version}: versions 1 and 2 are taken")
    key = _load_checked(pem("PRIVATE KEY", base64.b64encode(parts.private).decode()), None)
    if parts.public is not None and parts.public not in _forms_of(key.public_key()):
        raise KeyFormatError(_STRANGERS)
    return key


def _forms_of(public: Any) -> list[bytes]:
    """The forms in which a public key can stand beside its private key."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    match public:
        case Ed25519PublicKey():
            forms = [(Encoding.Raw, PublicFormat.Raw)]
        case RSAPublicKey():
            forms = [(Encoding.DER, PublicFormat.PKCS1)]
        case _:
            forms = [
                (Encoding.X962, PublicFormat.UncompressedPoint),
                (Encoding.X962, PublicFormat.CompressedPoint),
            ]
    return [public.public_bytes(*form) for form in forms]


def _want_passphrase(passphrase: bytes | None) -> None:
    if passphrase is None:
        raise KeyFormatError("the private key is encrypted: passphrase= is wanted")


def _want_bcrypt() -> None:
    try:
        import bcrypt  # noqa: F401 - cryptography uses it
    except ImportError:
        raise KeyFormatError(
            "an encrypted OpenSSH key needs the package bcrypt: pip install 'pie-anyio[ssh]'"
        ) from None


def _not_read(encrypted: bool, error: Exception) -> KeyFormatError:
    """The error for what `cryptography` raised: not in its words, which might quote the key."""
    if encrypted:
        return KeyFormatError("the passphrase is wrong, or the private key is damaged")
    return KeyFormatError(f"{_DAMAGED} ({type(error).__name__})")
