"""Public keys a server knows its users by: what an ``authorized_keys`` line says, and who signed.

This is the verifying side of authentication and the one list of the keys that Pie takes; the
signing side (`pie_proto.keys`) shares it. `cryptography` is imported by the first call that needs
it, which takes some tens of milliseconds.
"""

# ruff: noqa: PLC0415 - importing this module must not load cryptography

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

from pie_proto.errors import KeyFormatError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

__all__ = ["RSA_MAX_BITS", "RSA_MIN_BITS", "PublicKey", "parse_authorized_keys"]

RSA_MIN_BITS: Final = 2048
RSA_MAX_BITS: Final = 8192
"""The RSA keys that a Pie server takes; it refuses shorter and longer ones (docs/protocol.md)."""

# From here to the class: shared with pie_proto.keys, and no part of the public API.

MAX_KEY_BYTES: Final = 64 * 1024
"""The longest text looked at. An encrypted RSA key of 8192 bits takes less than 8 KiB; the rest is
room for what people write before a key."""

TAKEN: Final = (
    f"taken are Ed25519, RSA of {RSA_MIN_BITS} to {RSA_MAX_BITS} bits, and ECDSA on P-256 or P-384"
)

KEY_TYPE: Final = re.compile(r"(?:sk-)?(?:ssh|ecdsa-sha2)-[a-z0-9@.-]{1,60}")
"""Looks like the name of an OpenSSH key type. Nothing else of a text is ever repeated in an error,
since it might be a piece of a private key."""

PEM_BEGIN: Final = re.compile(r"-{4,5} ?BEGIN ([A-Z0-9 ]{1,60}?) ?-{4,5}")
"""The first line of a PEM block; RFC 4716 (SSH2) has one hyphen less, and a space."""

NO_TEXT: Final = "this is no text, or one in UTF-16 or UTF-32 that was read as another encoding"

_FORMS: Final = f"a public key is wanted as an authorized_keys line or PEM; {TAKEN}"
_CURVES: Final = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
_NAMES: Final = {"ssh-dss": "a DSA key", "ecdsa-sha2-nistp521": "an ECDSA key on P-521"}


def refused(found: str) -> KeyFormatError:
    """The error that says what was found, and what is taken instead."""
    return KeyFormatError(f"found {found}: {TAKEN}")


def take_string(data: bytes) -> tuple[bytes, bytes]:
    """Split the first string (RFC 4251, section 5: a length of 4 bytes, then so many) from data."""
    end = 4 + int.from_bytes(data[:4], "big")
    if len(data) < max(end, 4):
        raise KeyFormatError("the key is damaged or cut short")
    return data[4:end], data[end:]


def pem_body(text: str, begin: re.Match[str]) -> str:
    """What stands between ``begin`` and the matching END line, one word or header per line.

    Indentation, any line end, also none at all or the two characters that stand for one in an
    environment file: none of these can be part of a key.
    """
    end = text.find(f"-----END {begin[1]}-----", begin.end())
    if end < 0:
        raise KeyFormatError(f"the key is cut short: no line says -----END {begin[1]}-----")
    body = text[begin.end() : end].replace("\\r", "\n").replace("\\n", "\n").strip()
    if ":" in body:  # headers ("Proc-Type: 4,ENCRYPTED"), an empty line, then the key
        return "\n".join(line.strip() for line in body.splitlines())
    return "\n".join(body.split())


def pem(label: str, body: str) -> bytes:
    """A PEM block, as a reader stricter than we are wants it."""
    try:
        return f"-----BEGIN {label}-----\n{body}\n-----END {label}-----\n".encode("ascii")
    except UnicodeEncodeError:
        raise KeyFormatError("the key is damaged: it has characters outside ASCII") from None


def scheme(key_type: str) -> tuple[Any, ...]:
    """What `cryptography` wants beside the data to sign or verify: docs/protocol.md, step 4."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, padding

    match key_type:
        case "ssh-ed25519":
            return ()
        case "ssh-rsa":
            return (padding.PKCS1v15(), hashes.SHA256())
        case "ecdsa-sha2-nistp256":
            return (ec.ECDSA(hashes.SHA256()),)
        case _:
            return (ec.ECDSA(hashes.SHA384()),)


@dataclass(frozen=True, slots=True, repr=False)
class PublicKey:
    """A public key of a kind that Pie takes. Two are equal when the keys are; comments don't count.

    ``blob`` is the key in OpenSSH's wire form (RFC 4253, section 6.6), which is what stands in
    base64 in an ``authorized_keys`` line. A blob that is no key, or none that is taken, raises
    `KeyFormatError`.
    """

    blob: bytes
    comment: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        self._load()

    def __repr__(self) -> str:
        comment = f" {self.comment!r}" if self.comment else ""
        return f"<{type(self).__name__} {self.key_type} {self.fingerprint()}{comment}>"

    @classmethod
    def parse(cls, line: str) -> Self:
        """The key in one ``authorized_keys`` line (type, base64, comment), or in a PEM block.

        The PEM block is a SubjectPublicKeyInfo (``BEGIN PUBLIC KEY``) or PKCS#1
        (``BEGIN RSA PUBLIC KEY``), and has no comment.

        Raises `KeyFormatError`, and nothing else, for a text that is anything else; its message
        says what was found. An options field before the type (``from="10.0.0.*" ssh-ed25519 …``)
        is refused too: it restricts what the key is good for, which nothing here could enforce.
        """
        if len(line) > MAX_KEY_BYTES:
            raise KeyFormatError(f"{len(line)} characters are no key: the most is {MAX_KEY_BYTES}")
        line = line.removeprefix("\ufeff")  # a byte order mark
        begin = PEM_BEGIN.search(line)
        if begin is not None:
            return cls(_blob_from_pem(line, begin))
        words = line.split(maxsplit=2)
        if not words:
            raise KeyFormatError(f"the text is empty: {_FORMS}")
        if not KEY_TYPE.fullmatch(words[0]):
            if any(map(KEY_TYPE.fullmatch, line.split())):
                raise KeyFormatError(
                    "there are options before the key: they cannot be enforced here, and are not "
                    "ignored either; the line must begin with the type of the key"
                )
            found = NO_TEXT if "\0" in line else "found no public key"
            raise KeyFormatError(f"{found}: {_FORMS}")
        if len(words) == 1:
            raise KeyFormatError(f"the key is cut short: nothing follows {words[0]}")
        try:
            key = cls(base64.b64decode(words[1], validate=True), " ".join(words[2:]).strip())
        except KeyFormatError:
            raise
        except ValueError:
            raise KeyFormatError("the key is damaged: it is not base64") from None
        if key.key_type != words[0]:
            raise KeyFormatError(f"the line says {words[0]}, but its key is {key.key_type}")
        if "\n" in key.comment or "\r" in key.comment:
            raise KeyFormatError("there is more than one line: parse_authorized_keys() takes many")
        return key

    @classmethod
    def of(cls, key: PublicKeyTypes) -> Self:
        """The same key as an object of `cryptography`. Raises `KeyFormatError` if not taken."""
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        match key:
            case ed25519.Ed25519PublicKey() | rsa.RSAPublicKey():
                pass
            case ec.EllipticCurvePublicKey():
                if key.curve.name not in {"secp256r1", "secp384r1"}:
                    raise refused(f"an ECDSA key on {_CURVES.get(key.curve.name, key.curve.name)}")
            case _:
                kind = type(key).__name__.strip("_").removesuffix("PublicKey")
                raise refused(f"a key of the kind {kind}")
        line = key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        return cls(base64.b64decode(line.split()[1]))

    @property
    def key_type(self) -> str:
        """``ssh-ed25519``, ``ssh-rsa``, ``ecdsa-sha2-nistp256`` or ``ecdsa-sha2-nistp384``."""
        return take_string(self.blob)[0].decode("ascii")

    def line(self) -> str:
        """One ``authorized_keys`` line without the comment, and without a line end."""
        return f"{self.key_type} {base64.b64encode(self.blob).decode('ascii')}"

    def fingerprint(self) -> str:
        """``SHA256:`` and 43 characters of base64, as ``ssh-keygen -l`` prints it."""
        digest = base64.b64encode(hashlib.sha256(self.blob).digest())
        return f"SHA256:{digest.decode('ascii').rstrip('=')}"

    def verify(self, challenge: bytes, signature: bytes) -> bool:
        """Whether ``signature`` is this key's over the raw bytes of ``challenge``.

        The signature is raw, in the form that `pie_proto.keys.Signer` tells. One that is malformed,
        too short or too long is a wrong one: ``False``, never an exception.
        """
        from cryptography.exceptions import InvalidSignature

        try:
            self._load().verify(signature, challenge, *scheme(self.key_type))
        except InvalidSignature:
            return False
        return True

    def _load(self) -> Any:
        """The key as an object of `cryptography`, made anew: cheap, and keeps this class data."""
        from cryptography.hazmat.primitives.asymmetric import rsa
        from cryptography.hazmat.primitives.serialization import load_ssh_public_key

        name = take_string(self.blob)[0].decode("ascii", "replace")
        if not KEY_TYPE.fullmatch(name):
            raise KeyFormatError("the key is damaged: it does not begin with the name of its type")
        if name not in {"ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384"}:
            raise refused(_described(name))
        try:
            key = load_ssh_public_key(name.encode("ascii") + b" " + base64.b64encode(self.blob))
        except Exception:  # noqa: BLE001 - ValueError, NotImplementedError, and who knows what
            raise KeyFormatError(f"the {name} key is damaged") from None
        if isinstance(key, rsa.RSAPublicKey) and not RSA_MIN_BITS <= key.key_size <= RSA_MAX_BITS:
            raise refused(f"an RSA key of {key.key_size} bits")
        return key


def parse_authorized_keys(text: str) -> tuple[PublicKey, ...]:
    """Every key of a text in the form of OpenSSH's ``authorized_keys``, in order.

    Empty lines and those that begin with ``#`` are skipped. Raises `KeyFormatError` for the first
    line that `PublicKey.parse` does not take, with the number of that line: a file that is only
    half understood lets nobody in.
    """
    keys: list[PublicKey] = []
    # Not splitlines(): a comment may hold what Unicode calls a line separator, and editors that
    # count lines do not.
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        try:
            keys.append(PublicKey.parse(stripped))
        except KeyFormatError as error:
            raise KeyFormatError(f"line {number}: {error}") from None
    return tuple(keys)


def _described(key_type: str) -> str:
    if key_type.endswith("-cert-v01@openssh.com"):
        return f"a certificate ({key_type})"
    if key_type.startswith("sk-"):
        return f"a key that lives in a hardware token ({key_type})"
    return _NAMES.get(key_type, f"a key of the unknown type {key_type}")


def _blob_from_pem(text: str, begin: re.Match[str]) -> bytes:
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    label = begin[1]
    if label.endswith("PRIVATE KEY"):
        raise KeyFormatError("this is a private key: the public one is wanted, and only that")
    if label not in {"PUBLIC KEY", "RSA PUBLIC KEY"}:
        raise KeyFormatError(f"found a PEM block called {label}: {_FORMS}")
    data = pem(label, pem_body(text, begin))
    try:
        key = load_pem_public_key(data)
    except Exception:  # noqa: BLE001 - as above
        raise KeyFormatError("the public key is damaged, or of an unknown kind") from None
    return PublicKey.of(key).blob
