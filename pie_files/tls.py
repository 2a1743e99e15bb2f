"""What is trusted over TLS where the caller does not say. Imported by need, as `ssl` is."""

from __future__ import annotations

import ssl

__all__ = ["default_context"]


def default_context() -> ssl.SSLContext:
    """Trust what the system trusts. Reads files: for a worker thread."""
    context = ssl.create_default_context()
    # A WebSocket is opened over HTTP/1.1; some servers take HTTP/2 for granted otherwise.
    context.set_alpn_protocols(["http/1.1"])
    return context
