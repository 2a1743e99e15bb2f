"""A key is read whatever encoding its text has been written in."""

from __future__ import annotations

import os

import pytest

from pie_proto.errors import KeyFormatError
from pie_proto.key_text import encoding_of, text_of
from pie_proto.keys import ParsedPrivateKey
from pie_proto.public_keys import PublicKey, parse_authorized_keys
from tests.proto.test_keys import ED25519, ED25519_FINGERPRINT, ED25519_PUBLIC

ENCODINGS = [
    "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be",
]  # fmt: skip

BEFORE = ["", "# the key of ada\r\n", "# ключ от сервера\r\n", "# 鍵ファイル\r\n", "# 🔑\r\n"]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("before", BEFORE)
def test_a_private_key_is_read_in_every_encoding(encoding: str, before: str) -> None:
    text = before + ED25519.replace("\n", "\r\n")
    data = text.encode(encoding)
    assert text_of(data) == text
    assert ParsedPrivateKey.parse(data).fingerprint() == ED25519_FINGERPRINT
    marked = ("\ufeff" + text).encode(encoding)
    assert ParsedPrivateKey.parse(marked).fingerprint() == ED25519_FINGERPRINT


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_a_byte_order_mark_tells_the_encoding_whatever_follows(encoding: str) -> None:
    text = "鍵" * 5000 + "\nkey\n"
    marked = ("\ufeff" + text).encode(encoding)
    assert encoding_of(marked) == encoding
    assert text_of(marked) == text


def test_a_comment_in_an_encoding_of_eight_bits_does_not_matter() -> None:
    data = f"Schlüssel für Zoë\n{ED25519}".encode("cp1252")
    assert ParsedPrivateKey.parse(data).fingerprint() == ED25519_FINGERPRINT


def test_a_byte_order_mark_before_public_keys_does_not_matter() -> None:
    key = PublicKey.parse(ED25519_PUBLIC)
    assert PublicKey.parse("\ufeff" + ED25519_PUBLIC) == key
    assert parse_authorized_keys(f"\ufeff# ada's\n{ED25519_PUBLIC}\n") == (key,)
    assert parse_authorized_keys(f"\ufeff{ED25519_PUBLIC}\n") == (key,)


def test_public_keys_that_were_read_in_another_encoding_are_called_that() -> None:
    wrong = ED25519_PUBLIC.encode("utf-16-le").decode("latin-1")
    with pytest.raises(KeyFormatError, match="in UTF-16 or UTF-32 that was read as another"):
        PublicKey.parse(wrong)


@pytest.mark.parametrize("data", [b"", b"a", b"a\0", b"\0" * 100, bytes(range(256)) * 4])
def test_what_is_no_text_is_taken_for_utf_8(data: bytes) -> None:
    assert encoding_of(data) == "utf-8"


def test_random_bytes_are_no_text_in_wide_characters() -> None:
    assert {encoding_of(os.urandom(2000)) for _ in range(20)} == {"utf-8"}
