"""What is said to an ssh-agent and what it answers, as bytes: its keys, and its signatures.

The protocol is that of OpenSSH (draft-miller-ssh-agent): a length of four bytes, a type of one, and
fields. Signatures come in SSH's form, and are given in the form that Pie servers verify.
"""

# ruff: noqa: PLC0415 - importing this module must not load cryptography

from __future__ import annotations

from typing import Final

from pie_proto.errors import AgentError, KeyFormatError
from pie_proto.public_keys import PublicKey, take_string

__all__ = [
    "MAX_REPLY_BYTES",
    "identities_request",
    "read_identities",
    "read_signature",
    "sign_request",
]

MAX_REPLY_BYTES: Final = 256 * 1024
"""The longest message of an agent's: OpenSSH's own bound."""

_FAILURE: Final = 5
_REQUEST_IDENTITIES: Final = 11
_IDENTITIES_ANSWER: Final = 12
_SIGN_REQUEST: Final = 13
_SIGN_RESPONSE: Final = 14
_RSA_SHA2_256: Final = 2

_MAX_CHALLENGE_BYTES: Final = 64
"""Nothing longer is signed: an SSH login request is longer, and must never be (see `Signer`)."""


def identities_request() -> bytes:
    """The message that asks an agent for its keys."""
    return _message(_REQUEST_IDENTITIES)


def sign_request(key: PublicKey, challenge: bytes) -> bytes:
    """The message that asks an agent to sign ``challenge`` (1 to 64 bytes) with ``key``.

    Raises `AgentError` for a challenge of another length.
    """
    if not 1 <= len(challenge) <= _MAX_CHALLENGE_BYTES:
        raise AgentError(
            f"a challenge of {len(challenge)} bytes is not given to the ssh-agent: it signs SSH "
            f"logins too, and those are longer than {_MAX_CHALLENGE_BYTES} bytes"
        )
    flags = _RSA_SHA2_256 if key.key_type == "ssh-rsa" else 0
    return _message(
        _SIGN_REQUEST, _string(key.blob) + _string(challenge) + flags.to_bytes(4, "big")
    )


def read_identities(reply: bytes) -> tuple[PublicKey, ...]:
    """The keys in an agent's reply (without its length), of the kinds that Pie takes.

    Keys of other kinds are left out. Raises `AgentError` for anything else than a list of keys.
    """
    body = _body(reply, _IDENTITIES_ANSWER, "list its keys")
    if len(body) < 4:
        raise _damaged()
    count, body = int.from_bytes(body[:4], "big"), body[4:]
    keys = []
    for _ in range(count):
        blob, body = _take(body)
        comment, body = _take(body)
        try:
            keys.append(PublicKey(blob, comment.decode("utf-8", "replace")))
        except KeyFormatError:
            continue
    return tuple(keys)


def read_signature(reply: bytes, key: PublicKey) -> bytes:
    """The signature in an agent's reply (without its length), as Pie servers verify it.

    Raises `AgentError` if the agent did not sign, or in a form that is not that of ``key``.
    """
    signature, _ = _take(_body(reply, _SIGN_RESPONSE, "sign"))
    name, rest = _take(signature)
    value, _ = _take(rest)
    expected = b"rsa-sha2-256" if key.key_type == "ssh-rsa" else key.key_type.encode()
    if name != expected:
        raise AgentError(
            f"the ssh-agent signed as {name.decode('ascii', 'replace')!r}, "
            f"not as {expected.decode()!r}"
        )
    if key.key_type == "ssh-rsa":
        # SSH leaves out leading zeros, RFC 8017 does not.
        return value.rjust(_modulus_bytes(key), b"\0")
    if key.key_type.startswith("ecdsa-"):
        from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

        r, rest = _take(value)
        s, _ = _take(rest)
        return encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))
    return value


def _modulus_bytes(key: PublicKey) -> int:
    _, rest = _take(key.blob)
    _, rest = _take(rest)
    modulus, _ = _take(rest)
    return len(modulus.lstrip(b"\0"))


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def _message(kind: int, body: bytes = b"") -> bytes:
    return _string(bytes((kind,)) + body)


def _body(reply: bytes, expected: int, what: str) -> bytes:
    kind = reply[0] if reply else None
    if kind == _FAILURE:
        raise AgentError(f"the ssh-agent refused to {what}: it may be locked")
    if kind != expected:
        raise AgentError(f"asked to {what}, the ssh-agent answered with a message of type {kind}")
    return reply[1:]


def _take(data: bytes) -> tuple[bytes, bytes]:
    try:
        return take_string(data)
    except KeyFormatError:
        raise _damaged() from None


def _damaged() -> AgentError:
    return AgentError("the ssh-agent's answer is damaged or cut short")
