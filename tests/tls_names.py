"""Certificates for tests: an authority made anew for each run, and who trusts it."""

from __future__ import annotations

import ssl
from functools import cache

import trustme

__all__ = ["client_context", "server_certificate", "server_context"]


@cache
def _authority() -> trustme.CA:
    return trustme.CA()


@cache
def server_certificate() -> trustme.LeafCert:
    """A certificate for what is on this machine, and for one name that no resolver knows."""
    return _authority().issue_cert("127.0.0.1", "localhost", "pie.test")


def server_context(certificate: trustme.LeafCert | None = None) -> ssl.SSLContext:
    """What a server is given."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    (certificate or server_certificate()).configure_cert(context)
    return context


def client_context() -> ssl.SSLContext:
    """What a client is given that trusts the authority."""
    context = ssl.create_default_context()
    _authority().configure_trust(context)
    return context
