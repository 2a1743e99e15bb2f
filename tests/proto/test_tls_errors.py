"""What failures of TLS mean, and what to try: from the errors that OpenSSL really raises."""

from __future__ import annotations

import errno
import os
import ssl

import pytest

from pie_proto.connect_errors import tls_handshake_reason, unix_socket_reason
from pie_proto.errors import describe_cause, tls_error_behind
from pie_proto.tls_errors import explain_tls_error, is_tls_error, is_tls_wait


def raised_for(data: bytes, *, eof: bool = False) -> ssl.SSLError:
    """What a client's handshake raises when the server sends ``data``."""
    read, write = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(read, write, server_hostname="pie.test")
    with pytest.raises(ssl.SSLWantReadError) as waits:
        tls.do_handshake()
    assert is_tls_wait(waits.value)
    assert not is_tls_error(waits.value)
    read.write(data)
    if eof:
        read.write_eof()
    with pytest.raises(ssl.SSLError) as caught:
        tls.do_handshake()
    assert is_tls_error(caught.value)
    return caught.value


def alert(number: int) -> ssl.SSLError:
    return raised_for(b"\x15\x03\x03\x00\x02\x02" + bytes([number]))


# Numbers of alerts: RFC 8446, section 6.
@pytest.mark.parametrize(
    ("number", "begins", "advice"),
    [
        (40, "the server found no settings of TLS in common (", "client certificate"),
        (41, "the server requires a client certificate (", "load_cert_chain()"),
        (42, "the server does not accept this client's certificate (", "load_cert_chain()"),
        (43, "the server does not accept this client's certificate (", "load_cert_chain()"),
        (44, "the server does not accept this client's certificate (", "load_cert_chain()"),
        (45, "the server does not accept this client's certificate (", "load_cert_chain()"),
        (46, "the server does not accept this client's certificate (", "load_cert_chain()"),
        (48, "the server does not accept this client's certificate (", "load_cert_chain()"),
        (49, "the server denies access to this client (", "load_cert_chain()"),
        (70, "client and server have no version of TLS in common (", "ssl_context="),
        (71, "the server found no settings of TLS in common (", "ciphers"),
        (112, "the server has no host of this name (", "a name that it has"),
        (116, "the server requires a client certificate (", "load_cert_chain()"),
        (120, "the server does not offer HTTP/1.1 over TLS (", "a Pie server"),
    ],
)
def test_alerts_of_the_server_are_explained_in_the_handshake_and_after_it(
    number: int, begins: str, advice: str
) -> None:
    error = alert(number)
    text = explain_tls_error(error, handshake=True)
    assert text.startswith(begins)
    assert advice in text
    assert "_ssl.c" not in text
    assert "[" not in text
    # With TLS 1.3, a server may reject a client after its part of the handshake.
    assert explain_tls_error(error, handshake=False) == text
    assert describe_cause(error) == text


@pytest.mark.parametrize(("number", "text"), [(80, "internal error"), (77, "unknown error")])
def test_what_has_no_explanation_is_said_in_openssls_words(number: int, text: str) -> None:
    error = alert(number)
    said = explain_tls_error(error, handshake=True)
    assert said.startswith("the TLS handshake failed: ")
    assert said.endswith(text)
    assert describe_cause(error) == said.replace("the TLS handshake failed: ", "TLS: ")


@pytest.mark.parametrize("data", [b"HTTP/1.1 400 Bad\r\n\r\n", b"SSH-2.0-x\r\n", bytes(30)])
def test_a_peer_without_tls_is_known_in_the_handshake_alone(data: bytes) -> None:
    error = raised_for(data)
    text = explain_tls_error(error, handshake=True)
    assert text.startswith("what answers speaks no TLS (")
    assert text.endswith("Is it ws:// there, and not wss://?")
    assert explain_tls_error(error, handshake=False).startswith("TLS: ")


@pytest.mark.parametrize("error", [raised_for(b"", eof=True), ssl.SSLZeroReturnError()])
def test_an_end_in_the_handshake_is_one_that_hung_up(error: ssl.SSLError) -> None:
    text = explain_tls_error(error, handshake=True)
    assert text.startswith("the other side hung up during the TLS handshake")
    assert describe_cause(error).startswith("TLS: ")


def test_an_end_is_known_by_its_reason_where_it_has_no_class_of_its_own() -> None:
    error = ssl.SSLError()
    error.reason = "UNEXPECTED_EOF_WHILE_READING"
    assert "hung up" in explain_tls_error(error, handshake=True)


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (9, "clock"), (10, "clock"), (62, "a name that it is for"), (64, "a name that it is for"),
        (2, "issuer"), (18, "issuer"), (19, "issuer"), (20, "issuer"), (21, "issuer"),
        (23, "or pass ssl_context="),
    ],
)  # fmt: skip
def test_what_to_try_is_said_for_each_kind_of_bad_certificate(code: int, advice: str) -> None:
    error = ssl.SSLCertVerificationError()
    error.verify_code, error.verify_message = code, "it is bad."
    text = explain_tls_error(error, handshake=True)
    assert text.startswith("the server's certificate is not accepted: it is bad. ")
    assert advice in text


def wrapped(cause: BaseException) -> Exception:
    error = RuntimeError("the stream is broken")
    error.__cause__ = cause
    return error


def test_an_error_of_tls_is_found_behind_that_of_a_stream() -> None:
    error = alert(116)
    assert tls_error_behind(wrapped(wrapped(error))) is error
    assert tls_handshake_reason(wrapped(error), "x") == tls_handshake_reason(error, "x")
    assert "requires a client certificate" in tls_handshake_reason(error, "x")
    assert tls_error_behind(wrapped(OSError(errno.EPIPE, ""))) is None


def test_what_is_no_error_of_tls_is_one_that_hung_up_or_a_name_that_cannot_be() -> None:
    reset = wrapped(OSError(errno.ECONNRESET, ""))
    assert tls_handshake_reason(reset, "x") == (
        f"the other side hung up during the TLS handshake: {os.strerror(errno.ECONNRESET)}"
    )
    text = tls_handshake_reason(ValueError("label too long"), "pie.test")
    assert text == "no certificate can be for 'pie.test': label too long"


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOENT, "/run/pie. Has the server been started?"),
        (errno.EACCES, "to write to /run/pie, and to enter its folder, must be allowed"),
        (errno.ECONNREFUSED, "/run/pie is there, but no server listens to it any more"),
        (errno.ENOTSOCK, "/run/pie"),
    ],
)
def test_what_is_wrong_with_a_unix_socket_is_said(number: int, advice: str) -> None:
    reason = unix_socket_reason(OSError(number, "in its own words"), "/run/pie")
    assert reason == f"{os.strerror(number)}: {advice}"
