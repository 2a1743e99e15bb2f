"""What an `ssl.SSLError` means to a client, and what to try: from its attributes, without `ssl`."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["explain_tls_error", "is_tls_error", "is_tls_wait"]

# What OpenSSL calls it when a peer sends what is no TLS. That depends on its version.
_NO_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL"})

# X509_V_ERR_*: openssl/x509_vfy.h
_OUT_OF_DATE: Final = frozenset({9, 10})
_UNKNOWN_ISSUER: Final = frozenset({2, 18, 19, 20, 21})
_OTHER_NAME: Final = frozenset({62, 64})

_LOAD: Final = "into the context that you pass as ssl_context=, with load_cert_chain()"
_CERTIFICATE_REQUIRED: Final = ("the server requires a client certificate", f"Load one {_LOAD}")
_CERTIFICATE_REJECTED: Final = (
    "the server does not accept this client's certificate",
    f"Load one that it accepts {_LOAD}",
)
_NOTHING_IN_COMMON: Final = (
    "the server found no settings of TLS in common",
    "Does it require a client certificate, or other versions or ciphers? Set them in ssl_context=",
)
_OTHER_VERSION: Final = (
    "client and server have no version of TLS in common",
    "The context that you pass as ssl_context= says which ones the client takes",
)
_REASONS: Final = {
    # The alerts of a server (RFC 8446, section 6.2).
    "ALERT_CERTIFICATE_REQUIRED": _CERTIFICATE_REQUIRED,
    "ALERT_NO_CERTIFICATE": _CERTIFICATE_REQUIRED,
    "ALERT_BAD_CERTIFICATE": _CERTIFICATE_REJECTED,
    "ALERT_UNSUPPORTED_CERTIFICATE": _CERTIFICATE_REJECTED,
    "ALERT_CERTIFICATE_REVOKED": _CERTIFICATE_REJECTED,
    "ALERT_CERTIFICATE_EXPIRED": _CERTIFICATE_REJECTED,
    "ALERT_CERTIFICATE_UNKNOWN": _CERTIFICATE_REJECTED,
    "ALERT_UNKNOWN_CA": _CERTIFICATE_REJECTED,
    "ALERT_ACCESS_DENIED": (
        "the server denies access to this client",
        f"If it requires a client certificate, load that {_LOAD}",
    ),
    "ALERT_HANDSHAKE_FAILURE": _NOTHING_IN_COMMON,
    "ALERT_INSUFFICIENT_SECURITY": _NOTHING_IN_COMMON,
    "ALERT_PROTOCOL_VERSION": _OTHER_VERSION,
    "ALERT_NO_APPLICATION_PROTOCOL": (
        "the server does not offer HTTP/1.1 over TLS",
        "Is a Pie server listening there?",
    ),
    "UNRECOGNIZED_NAME": (
        "the server has no host of this name",
        "Connect to a name that it has",
    ),
    # What OpenSSL finds out itself.
    "UNSUPPORTED_PROTOCOL": _OTHER_VERSION,
    "NO_PROTOCOLS_AVAILABLE": _OTHER_VERSION,
}

_AROUND: Final = re.compile(r"^\[[^]]*\] *| *\(_ssl\.c:\d+\)$")


def is_tls_error(exc: BaseException) -> bool:
    """Whether this is an `ssl.SSLError`, and not only `is_tls_wait`."""
    return "SSLError" in _kinds(exc) and not is_tls_wait(exc)


def is_tls_wait(exc: BaseException) -> bool:
    """Whether TLS only waits for the transport: not a failure, but often the context of one."""
    return bool({"SSLWantReadError", "SSLWantWriteError"} & _kinds(exc))


def explain_tls_error(exc: BaseException, *, handshake: bool) -> str:
    """Say why TLS failed for a client, and what to try.

    ``handshake``: it failed in the TLS handshake. With TLS 1.3 a server may reject a client after
    that, so that the first read says so.
    """
    verify_code = getattr(exc, "verify_code", None)
    if isinstance(verify_code, int):
        text = str(getattr(exc, "verify_message", "")).rstrip(".")
        return (
            f"the server's certificate is not accepted: {text}. {_certificate_advice(verify_code)}"
        )
    text = _text(exc)
    reason = text.upper().replace(" ", "_")
    if handshake:
        ended = {"SSLEOFError", "SSLZeroReturnError"} & _kinds(exc)
        if ended or reason == "UNEXPECTED_EOF_WHILE_READING":
            return (
                "the other side hung up during the TLS handshake. Does it speak TLS there, wss://?"
            )
        if reason in _NO_TLS:
            return f"what answers speaks no TLS ({text}). Is it ws:// there, and not wss://?"
    for end, (meaning, advice) in _REASONS.items():
        if reason.endswith(end):
            return f"{meaning} ({text}). {advice}"
    return f"the TLS handshake failed: {text}" if handshake else f"TLS: {text}"


def _kinds(exc: BaseException) -> set[str]:
    return {kind.__name__ for kind in type(exc).__mro__ if kind.__module__ == "ssl"}


def _text(exc: BaseException) -> str:
    """What OpenSSL says, in its words."""
    reason = getattr(exc, "reason", None)
    if isinstance(reason, str):
        return reason.replace("_", " ").lower()
    # Python does not know the reasons of every OpenSSL by name.
    return _AROUND.sub("", str(getattr(exc, "strerror", None) or exc)) or type(exc).__name__


def _certificate_advice(verify_code: int) -> str:
    if verify_code in _OTHER_NAME:
        return "Connect to a name that it is for"
    if verify_code in _UNKNOWN_ISSUER:
        return (
            "If you trust its issuer, pass "
            "ssl_context=ssl.create_default_context(cafile=...) with the issuer's certificate"
        )
    if verify_code in _OUT_OF_DATE:
        return "Is this machine's clock right? If so, the server needs a new certificate"
    return "The server needs a certificate that this machine accepts, or pass ssl_context="
