"""Contexts of TLS: the default, and the check of a given one. Imported only if needed, as `ssl`."""

from __future__ import annotations

import ssl

from pie_proto.addresses import ServerAddress

__all__ = ["check_context", "default_context"]


def check_context(context: object, address: ServerAddress) -> None:
    """Check an ``ssl_context`` argument. Raises `TypeError` or `ValueError`."""
    if not isinstance(context, ssl.SSLContext):
        raise TypeError(f"ssl_context is an ssl.SSLContext, not {type(context).__name__}")
    if context.protocol is ssl.PROTOCOL_TLS_SERVER:
        raise ValueError("this ssl_context is for servers: make one with create_default_context()")
    if not address.secure:
        raise ValueError(f"ssl_context= is for wss://: {address.uri!r} is not spoken to over TLS")


def default_context() -> ssl.SSLContext:
    """Trust what the system trusts. Reads files: for a worker thread."""
    context = ssl.create_default_context()
    # A WebSocket is opened over HTTP/1.1; some servers take HTTP/2 for granted otherwise.
    context.set_alpn_protocols(["http/1.1"])
    return context
