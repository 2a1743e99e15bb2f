"""Why connecting failed, and what to try, in the words of every driver."""

from __future__ import annotations

from pie_proto.errors import describe_cause, tls_error_behind
from pie_proto.tls_errors import explain_tls_error

__all__ = ["tls_handshake_reason", "unix_socket_reason"]


def tls_handshake_reason(exc: BaseException, server_name: str | None) -> str:
    """What an exception of the TLS handshake means; it may be wrapped by those of a stream.

    A `ValueError` is OpenSSL's for a ``server_name`` that is too long for any certificate.
    """
    error = tls_error_behind(exc)
    if error is not None:
        return explain_tls_error(error, handshake=True)
    if isinstance(exc, ValueError):
        return f"no certificate can be for {server_name!r}: {exc}"
    return f"the other side hung up during the TLS handshake: {describe_cause(exc)}"


def unix_socket_reason(exc: BaseException, path: str) -> str:
    """What an exception of connecting to a Unix socket means."""
    reason = describe_cause(exc)
    if isinstance(exc, FileNotFoundError):
        return f"{reason}: {path}. Has the server been started?"
    if isinstance(exc, PermissionError):
        return f"{reason}: to write to {path}, and to enter its folder, must be allowed"
    if isinstance(exc, ConnectionRefusedError):
        return f"{reason}: {path} is there, but no server listens to it any more"
    return f"{reason}: {path}"
