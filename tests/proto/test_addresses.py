"""Where a server is: what a URI says, and what is odd about one."""

from __future__ import annotations

import pytest

from pie_proto.addresses import ServerAddress


@pytest.mark.parametrize(
    ("uri", "host", "port", "target", "host_header"),
    [
        ("ws://127.0.0.1:8080", "127.0.0.1", 8080, None, "127.0.0.1:8080"),
        ("ws://pie.example", "pie.example", 80, None, "pie.example"),
        ("ws://pie.example:80/", "pie.example", 80, None, "pie.example"),
        ("ws://pie.example:443", "pie.example", 443, None, "pie.example:443"),
        ("ws://pie.example:", "pie.example", 80, None, "pie.example"),
        ("wss://pie.example", "pie.example", 443, None, "pie.example"),
        ("wss://pie.example:443", "pie.example", 443, None, "pie.example"),
        ("wss://pie.example:80", "pie.example", 80, None, "pie.example:80"),
        ("WSS://Pie.EXAMPLE/Path", "pie.example", 443, "/Path", "pie.example"),
        ("ws://my_pie-1:1/a%20b?c=d&e", "my_pie-1", 1, "/a%20b?c=d&e", "my_pie-1:1"),
        ("ws://h?q", "h", 80, "/?q", "h"),
        ("ws://[::1]", "::1", 80, None, "[::1]"),
        ("wss://[2001:DB8::1]:8443/x", "2001:db8::1", 8443, "/x", "[2001:db8::1]:8443"),
        ("ws://[fe80::1%25eth0]:8080", "fe80::1%eth0", 8080, None, "[fe80::1]:8080"),
        ("ws://[FE80::1%25Wi-Fi0]/Path", "fe80::1%Wi-Fi0", 80, "/Path", "[fe80::1]"),
        ("wss://[fe80::1%25vEthernet_LAB]:1/?Q", "fe80::1%vEthernet_LAB", 1, "/?Q", "[fe80::1]:1"),
        ("ws://[fe80::1%25eth0.100~a]", "fe80::1%eth0.100~a", 80, None, "[fe80::1]"),
        ("ws://[fe80::1%25~tun]", "fe80::1%~tun", 80, None, "[fe80::1]"),
        ("ws://[fe80::1%25-._~]", "fe80::1%-._~", 80, None, "[fe80::1]"),
        ("ws://[fe80::1%2525]", "fe80::1%25", 80, None, "[fe80::1]"),
        ("ws://[fe80::1%Wi-Fi0]", "fe80::1%Wi-Fi0", 80, None, "[fe80::1]"),
        ("ws://[fe80::1%2]", "fe80::1%2", 80, None, "[fe80::1]"),
        ("ws://[fe80::1%25Wi%2DFi%20%28%c3%89%29]", "fe80::1%Wi-Fi (É)", 80, None, "[fe80::1]"),
        ("ws://[fe80::1%25a%25b%5D%2F%40]", "fe80::1%a%b]/@", 80, None, "[fe80::1]"),
        ("ws://[fe80::1%25%ff]", "fe80::1%\udcff", 80, None, "[fe80::1]"),
        ("ws://[::ffff:127.0.0.1]/", "::ffff:127.0.0.1", 80, None, "[::ffff:127.0.0.1]"),
    ],
)
def test_a_uri_names_host_port_and_target(
    uri: str, host: str, port: int, target: str | None, host_header: str
) -> None:
    address = ServerAddress.parse(uri)
    assert (address.host, address.port, address.target) == (host, port, target)
    assert address.host_header == host_header
    assert address.path is None
    assert address.uri == uri
    assert address.secure == uri.lower().startswith("wss")


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("ws+unix:///run/pie.sock", "/run/pie.sock"),
        ("ws+unix:///a%20b%3Fc%23d%25", "/a b?c#d%"),
        ("ws+unix:///caf%C3%A9", "/café"),
        ("ws+unix:///%FF", "/\udcff"),
    ],
)
def test_a_uri_names_a_unix_socket(uri: str, path: str) -> None:
    address = ServerAddress.parse(uri)
    assert address.path == path
    assert (address.host_header, address.target, address.secure) == ("localhost", None, False)
    assert ServerAddress.of_socket(path) == address


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("", "begins with ws://"),
        ("127.0.0.1:8080", "begins with ws://"),
        ("localhost:8080", "begins with ws://"),
        ("http://pie.example", "begins with ws://"),
        ("unix:///run/pie.sock", "begins with ws://"),
        ("ws://", "has no host"),
        ("ws:///path", "has no host"),
        ("ws:pie.example", "has no host"),
        ("ws://:8080", "has no host"),
        ("ws://pie.example:0", "no valid port"),
        ("ws://pie.example:65536", "no valid port"),
        ("ws://pie.example:http", "no valid port"),
        ("ws://pie.example:-1", "no valid port"),
        ("ws://[::1", "no valid host"),
        ("ws://[pie.example]", "no valid host"),
        ("ws://::1", "no host"),
        ("ws://[fe80::1%25]", "no valid host"),
        ("ws://[fe80::1%]", "no valid host"),
        ("ws://[fe80::1%25a!b]", "no valid host"),
        ("ws://[fe80::1%25a%2]", "no valid host"),
        ("ws://[fe80::1%25a%zz]", "no valid host"),
        ("ws://[fe80::1%25a%00]", "no valid host"),
        ("ws://[fe80::1%25a%0Ab]", "no valid host"),
        ("ws://[fe80::1%25a[b]", "no valid host"),
        ("ws://[%25eth0]", "no host|no valid host"),
        ("ws://[pie.example%25eth0]", "no valid host"),
        ("ws://pie.example%25eth0", "no valid host"),
        ("ws://[fe80::1%25eth0]x", "no valid host"),
        ("ws://[::1]x:80", "no valid host"),
        ("ws://x[::1]", "no valid host"),
        ("ws://a::1", "no valid"),
        ("ws://a%20b", "no valid host"),
        ("ws://a\\b", "no valid host"),
        ("ws://a,b", "no valid host"),
        ("ws://café", "ASCII"),
        ("ws://pie.example/a b", "ASCII"),
        (" ws://pie.example", "ASCII"),
        ("ws://pie.\nexample", "ASCII"),
        ("ws://pie.example/\r\nX: y", "ASCII"),
        ("ws://pie.example/#top", "fragment"),
        ("ws://pie.example#", "fragment"),
        ("ws+unix://run/pie.sock", "three slashes"),
        ("ws+unix:run/pie.sock", "three slashes"),
        ("ws+unix:", "three slashes"),
        ("ws+unix:///", "three slashes"),
        ("ws+unix:///run/", "three slashes"),
        ("ws+unix:///run/pie.sock?x", "query"),
        ("ws+unix:///run/pie.sock?", "query"),
        ("ws+unix:///run/pie%00.sock", "NUL"),
    ],
)
def test_an_odd_uri_is_refused_in_words(uri: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ServerAddress.parse(uri)


@pytest.mark.parametrize("scheme", ["ws", "wss", "http", "ws+unix"])
@pytest.mark.parametrize("host", ["pie.example", "café", "[x"])
def test_a_password_is_refused_and_not_repeated(scheme: str, host: str) -> None:
    with pytest.raises(ValueError, match=r"authenticate\(\)") as caught:
        ServerAddress.parse(f"{scheme}://ada:secret@{host}/")
    assert "secret" not in str(caught.value)


def test_a_percent_sign_in_a_path_or_a_name_is_no_zone() -> None:
    assert ServerAddress.parse("ws://[::1]/a%25b]").host == "::1"
    assert ServerAddress.parse("ws://[::1]/[a%25b]").target == "/[a%25b]"
    assert ServerAddress.parse("ws+unix:///[a%25b]").path == "/[a%b]"


def test_a_sign_of_a_user_may_stand_in_a_path() -> None:
    assert ServerAddress.parse("ws://pie.example/a@b").target == "/a@b"


def test_a_uri_is_text() -> None:
    with pytest.raises(TypeError, match="not bytes"):
        ServerAddress.parse(b"ws://127.0.0.1")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("uri", "authority", "name"),
    [
        ("wss://pie.example", "pie.example:443", "pie.example"),
        ("wss://pie.example.:8443", "pie.example.:8443", "pie.example"),
        ("wss://[fe80::1%25eth0]", "[fe80::1]:443", "fe80::1"),
        ("wss://[fe80::1%25Wi%20Fi%25]", "[fe80::1]:443", "fe80::1"),
    ],
)
def test_proxies_and_certificates_have_forms_of_their_own(
    uri: str, authority: str, name: str
) -> None:
    address = ServerAddress.parse(uri)
    assert (address.authority, address.server_name) == (authority, name)
