"""Through an HTTP proxy: which one, and how it is asked (CONNECT, RFC 9110)."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, unquote_to_bytes

import anyio
import h11
from anyio.abc import ByteStream

from pie_proto.addresses import ServerAddress
from pie_proto.errors import ConnectFailed

__all__ = ["ENVIRONMENT", "Proxy", "open_tunnel", "proxy_for"]

ENVIRONMENT: Final = "environment"
"""The value of ``proxy=`` that has the environment decide."""

_FORM: Final = "proxy= is 'environment', or a URI as in http://127.0.0.1:3128"

# All heads of the answer together; the same bound as that of the WebSocket's own handshake.
_HEAD_BYTES: Final = 64 * 1024
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
) -> None:
    """Ask the proxy at the other end of ``stream`` for a tunnel to ``address``.

    Raises `ConnectFailed`, with at most ``body_bytes`` of the body of a refusal, and what the
    stream raises. Unbounded in time.
    """
    authority = address.authority
    headers = [(b"Host", authority.encode())]
    if proxy.authorization is not None:
        headers.append((b"Proxy-Authorization", proxy.authorization))
    http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD_BYTES)
    request = h11.Request(method="CONNECT", target=authority, headers=headers)
    await stream.send((http.send(request) or b"") + (http.send(h11.EndOfMessage()) or b""))
    response = await _response(stream, http, proxy)
    status = response.status_code
    if 200 <= status < 300:
        if http.trailing_data[0]:
            raise ConnectFailed(f"the proxy {proxy} sends what nobody asked for")
        return
    body = (await _body(stream, http, body_bytes)).decode("utf-8", "replace")
    said = f": {body}" if body else ""
    remedy = ""
    if status == 407:
        remedy = (
            ". It wants a user and a password: proxy='http://user:password@host:port'"
            if proxy.authorization is None
            else ". It does not accept this user and password"
        )
    raise ConnectFailed(
        f"the proxy {proxy} answered HTTP {status} instead of leading to {authority}{remedy}{said}",
        status=status,
        body=body,
    )


async def _response(stream: ByteStream, http: h11.Connection, proxy: Proxy) -> h11.Response:
    room = _HEAD_BYTES
    while True:
        try:
            event = http.next_event()
            if event is h11.NEED_DATA:
                if room <= 0:
                    raise ConnectFailed(f"the headers of the proxy {proxy} have no end")
                data = await _receive(stream)
                if not data:
                    raise ConnectFailed(f"the proxy {proxy} hung up without an answer")
                room -= len(data)
                http.receive_data(data)
                continue
        except h11.RemoteProtocolError as exc:
            raise ConnectFailed(
                f"what answers at {proxy} is no HTTP proxy: {str(exc)[:200]}"
            ) from exc
        if isinstance(event, h11.Response):
            return event
        # Else it is an informational answer, behind which another comes.


async def _body(stream: ByteStream, http: h11.Connection, bound: int) -> bytes:
    """The start of a refusal's body, as far as it comes whole and well."""
    body = bytearray()
    while len(body) < bound:
        try:
            event = http.next_event()
            if event is h11.NEED_DATA:
                http.receive_data(await _receive(stream))
                continue
        except (h11.RemoteProtocolError, anyio.BrokenResourceError, OSError):
            break
        if not isinstance(event, h11.Data):
            break
        body += event.data
    return bytes(body[:bound])


async def _receive(stream: ByteStream) -> bytes:
    try:
        return await stream.receive(_READ_BYTES)
    except anyio.EndOfStream:
        return b""
