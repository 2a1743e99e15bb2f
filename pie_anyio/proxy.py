"""Through an HTTP proxy: which one, and how it is asked (CONNECT, RFC 9110)."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, unquote_to_bytes

import anyio
from anyio.abc import ByteStream

from pie_proto.addresses import ServerAddress
from pie_proto.errors import ConnectFailed, RemoteProtocolError
from pie_proto.http_responses import HeadReader, HttpResponse

__all__ = ["ENVIRONMENT", "Proxy", "open_tunnel", "proxy_for", "read_body", "rejected"]

ENVIRONMENT: Final = "environment"
"""The value of ``proxy=`` that has the environment decide."""

_FORM: Final = "proxy= is 'environment', or a URI as in http://127.0.0.1:3128"

_READ_BYTES: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """An HTTP proxy, and what is said to it for authorization."""

    host: str
    port: int
    authorization: bytes | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, uri: str) -> Proxy:
        """Read ``http://[user:password@]host[:port]``, percent-encoded; the port is 80 by default.

        Raises `ValueError`, which repeats nothing of the URI: there may be a password in it.
        """
        if not isinstance(uri, str):
            raise TypeError(f"{_FORM}; not {type(uri).__name__}")
        scheme, separator, rest = uri.partition("://")
        scheme = scheme.lower()
        if separator and scheme.startswith("socks"):
            raise ValueError(
                "SOCKS proxies are not spoken to: open the stream with a SOCKS library, and pass a "
                "function that does as connect="
            )
        if not separator or scheme != "http":
            raise ValueError(f"{_FORM}. For other proxies, pass connect= a function of your own")
        authority = rest.rstrip("/")
        userinfo, at, location = authority.rpartition("@")
        try:
            # The same rules for hosts and ports as for servers'.
            address = ServerAddress.parse(f"ws://{location}")
        except ValueError:
            raise ValueError(f"the proxy's URI has no valid host or port. {_FORM}") from None
        if address.target is not None or set(authority) & set("/?#"):
            raise ValueError(f"the proxy's URI has a path. {_FORM}")
        credentials = None
        if at:
            user, _, password = userinfo.partition(":")
            plain = unquote_to_bytes(user) + b":" + unquote_to_bytes(password)
            credentials = b"Basic " + b64encode(plain)
        return cls(host=address.host, port=address.port, authorization=credentials)

    def __str__(self) -> str:
        address, percent, zone = self.host.partition("%")
        if percent:
            address += "%25" + quote(zone, safe="", errors="surrogateescape")
        host = f"[{address}]" if ":" in address else address
        return f"http://{host}:{self.port}"


def proxy_for(address: ServerAddress, proxy: str) -> Proxy | None:
    """Through which proxy to go to ``address``, if any; raises `ValueError`."""
    if proxy != ENVIRONMENT:
        chosen = Proxy.parse(proxy)
        if address.path is not None:
            raise ValueError("no proxy leads to a Unix socket: leave proxy= out")
        return chosen
    if address.path is not None:
        return None
    from urllib.request import getproxies, proxy_bypass  # noqa: PLC0415 - loads much

    proxies = getproxies()
    uri = proxies.get("https" if address.secure else "http") or proxies.get("all")
    if not uri or proxy_bypass(address.host) or proxy_bypass(address.authority):
        return None
    try:
        return Proxy.parse(uri if "://" in uri else f"http://{uri}")
    except ValueError as exc:
        raise ValueError(f"the proxy that the environment names: {exc}") from None


async def open_tunnel(
    stream: ByteStream, proxy: Proxy, address: ServerAddress, *, body_bytes: int
) -> HttpResponse | None:
    """Ask the proxy at the other end of ``stream`` for a tunnel to ``address``.

    ``None``: the stream leads there now. Otherwise the proxy's response, whose body `read_body`
    reads: at most ``body_bytes`` of it. Raises `ConnectFailed`, and what the stream raises.
    Unbounded in time.
    """
    lines = [f"CONNECT {address.authority} HTTP/1.1", f"Host: {address.authority}"]
    request = "\r\n".join(lines).encode()
    if proxy.authorization is not None:
        request += b"\r\nProxy-Authorization: " + proxy.authorization
    await stream.send(request + b"\r\n\r\n")
    received = bytearray()
    try:
        head = await _head(stream, received, proxy)
        response = HttpResponse(
            head, peer=f"proxy {proxy}", method="CONNECT", body_bytes=body_bytes
        )
    except RemoteProtocolError as exc:
        raise ConnectFailed(f"what answers at {proxy} is no HTTP proxy: {exc}") from exc
    if 200 <= response.status < 300:
        if received:
            raise ConnectFailed(f"the proxy {proxy} sends what nobody asked for")
        return None
    response.receive_data(bytes(received))
    return response


async def _head(stream: ByteStream, received: bytearray, proxy: Proxy) -> bytes:
    heads = HeadReader(
        received,
        peer=f"proxy {proxy}",
        begins=b"HTTP/1.",
        otherwise=f"the proxy {proxy} does not answer over HTTP/1",
    )
    while (head := heads.next_head()) is None:
        try:
            received += await stream.receive(_READ_BYTES)
        except anyio.EndOfStream:
            raise ConnectFailed(f"the proxy {proxy} hung up without an answer") from None
    return head


async def read_body(stream: ByteStream, response: HttpResponse) -> None:
    """Read the body of a rejection, as far as it comes. Unbounded in time."""
    try:
        while not response.complete:
            response.receive_data(await stream.receive(_READ_BYTES))
    except (anyio.EndOfStream, anyio.BrokenResourceError, OSError):
        response.receive_eof()


def rejected(proxy: Proxy, address: ServerAddress, response: HttpResponse) -> ConnectFailed:
    """The exception for a proxy that does not lead to ``address``."""
    status, body = response.status, response.body
    place = f", and points to {response.location}" if response.location else ""
    advice = ""
    if status == 407:
        advice = (
            ". It wants a user and a password: proxy='http://user:password@host:port'"
            if proxy.authorization is None
            else ". It does not accept this user and password"
        )
    text = f": {body}" if body else ""
    return ConnectFailed(
        f"the proxy {proxy} answered HTTP {status} instead of leading to "
        f"{address.authority}{place}{advice}{text}",
        status=status,
        body=body,
        location=response.location,
    )
