"""Where a server is, as a URI says it, and what the opening handshake says of it.

Three forms: ``ws://host[:port][/path]``, the same with ``wss://``, and ``ws+unix:///path`` for a
Unix socket.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, quote, unquote_to_bytes, urlsplit

__all__ = ["ServerAddress"]

_UNIX: Final = "ws+unix"
_DEFAULT_PORTS: Final = {"ws": 80, "wss": 443}

_HAS_USER: Final = re.compile(r"[^/?#]*//[^/?#]*@")
# Letters of names that resolvers and certificates know, and "_", which inner networks use.
_HOST: Final = re.compile(r"[a-z0-9_.-]+")
_IPV6: Final = re.compile(r"[0-9a-f:.]*:[0-9a-f:.]*")
_IN_BRACKETS: Final = re.compile(r"\[[^]]*](?::.*)?")
# The zone of an IPv6 address (RFC 6874): after "%25", or after "%" alone, as people write it.
_ZONED: Final = re.compile(r"([^/?#]*//\[[^]/?#%]*)%(?:25)?([^]/?#]*)(].*)")
_ZONE: Final = re.compile(r"(?:[A-Za-z0-9._~-]|%[0-9A-Fa-f]{2})+")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerAddress:
    """Where a server is. ``path`` is that of a Unix socket; host and port then mean nothing.

    The ``host`` of an IPv6 address with a zone is ``address%zone``, the zone decoded, in its case.
    ``target`` is what the opening handshake asks for: path and query of the URI.
    """

    uri: str
    scheme: str
    host: str
    port: int
    target: str | None = None
    """What the opening request asks for, where the URI says it; ``/`` alone says nothing."""
    path: str | None = None

    @classmethod
    def parse(cls, uri: str) -> ServerAddress:
        """Read a URI. Raises `ValueError` that says what is wrong, `TypeError` if it is no str."""
        if not isinstance(uri, str):
            raise TypeError(f"a server URI is a str, not {type(uri).__name__}")
        # First of all, since what is wrong is told with the URI, and a password is not to be.
        if _HAS_USER.match(uri):
            raise ValueError("a server URI takes no user name or password: call authenticate()")
        if not uri.isascii() or not uri.isprintable() or " " in uri:
            raise ValueError(
                f"a server URI has ASCII characters only, without spaces: {uri!r}. Write names in "
                "Punycode, and paths with percent signs"
            )
        try:
            unzoned, zone = _cut_zone(uri)
            parts = urlsplit(unzoned)
        except ValueError as exc:
            raise ValueError(f"the server URI has no valid host: {uri!r}") from exc
        if parts.scheme not in {*_DEFAULT_PORTS, _UNIX}:
            raise ValueError(
                "a server URI begins with ws://, wss:// or ws+unix://, as in ws://127.0.0.1:8080: "
                f"{uri!r}"
            )
        if "#" in uri:
            raise ValueError(f"a server URI has no #fragment: {uri!r}")
        if parts.scheme == _UNIX:
            return cls._of_socket(uri, parts)
        return cls._of_host(uri, parts, zone)

    @classmethod
    def of_socket(cls, path: str) -> ServerAddress:
        """Address a Unix socket by its absolute path."""
        return cls.parse(f"{_UNIX}://{quote(path, errors='surrogateescape')}")

    @classmethod
    def _of_host(cls, uri: str, parts: SplitResult, zone: str) -> ServerAddress:
        host = parts.hostname or ""
        if not host:
            raise ValueError(f"the server URI has no host: {uri!r}")
        # `urlsplit` drops what stands before or after the brackets.
        stray = "[" in parts.netloc and not _IN_BRACKETS.fullmatch(parts.netloc)
        if stray or not (_IPV6 if zone or ":" in host else _HOST).fullmatch(host):
            raise ValueError(f"the server URI has no valid host: {uri!r}")
        try:
            port = parts.port
        except ValueError:
            port = 0
        if port == 0:
            raise ValueError(f"the server URI has no valid port: {uri!r}")
        target = parts.path or "/"
        if parts.query:
            target += f"?{parts.query}"
        return cls(
            uri=uri,
            scheme=parts.scheme,
            host=host + zone,
            port=_DEFAULT_PORTS[parts.scheme] if port is None else port,
            target=None if target == "/" else target,
        )

    @classmethod
    def _of_socket(cls, uri: str, parts: SplitResult) -> ServerAddress:
        path = unquote_to_bytes(parts.path).decode("utf-8", "surrogateescape")
        if parts.netloc or not path.startswith("/") or path.endswith("/"):
            raise ValueError(
                "the URI of a Unix socket has three slashes and an absolute path, as in "
                f"ws+unix:///run/pie.sock: {uri!r}"
            )
        if "?" in uri:
            raise ValueError(
                f"the URI of a Unix socket has no ?query; write %3F in a path: {uri!r}"
            )
        if "\0" in path:
            raise ValueError(f"the path of a Unix socket has no NUL: {uri!r}")
        return cls(uri=uri, scheme=_UNIX, host="localhost", port=80, path=path)

    @property
    def secure(self) -> bool:
        """Whether it is spoken to over TLS."""
        return self.scheme == "wss"

    @property
    def authority(self) -> str:
        """Host and port, always both, as the request to a proxy names them."""
        return f"{self._bracketed}:{self.port}"

    @property
    def host_header(self) -> str:
        """What the ``Host`` header says: without a default port."""
        default = self.port == _DEFAULT_PORTS.get(self.scheme, 80)
        return self._bracketed if default else self.authority

    @property
    def server_name(self) -> str:
        """The name that a certificate is to be for."""
        return self._without_zone.rstrip(".")

    @property
    def _without_zone(self) -> str:
        # It says which interface of this machine leads there: nobody else's business.
        return self.host.partition("%")[0]

    @property
    def _bracketed(self) -> str:
        host = self._without_zone
        return f"[{host}]" if ":" in host else host


def _cut_zone(uri: str) -> tuple[str, str]:
    """Split the zone from a URI: the rest, and ``%zone`` or ``""``.

    It must be cut before the URI is split: `urlsplit` makes hosts lower-case, and takes no percent
    sign in a zone. Raises `ValueError` for what is no zone.
    """
    zoned = _ZONED.fullmatch(uri)
    if zoned is None:
        return uri, ""
    before, encoded, after = zoned.groups()
    zone = unquote_to_bytes(encoded).decode("utf-8", "surrogateescape")
    if not _ZONE.fullmatch(encoded) or _CONTROL.search(zone):
        raise ValueError("no valid zone")
    return before + after, f"%{zone}"
