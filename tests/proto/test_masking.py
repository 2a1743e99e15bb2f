"""Masks of WebSocket payloads, in pure Python and native."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

from pie_proto import masking
from tests.proto.websocket_wire import (
    KEY,
    payload_of,
)


@pytest.fixture(autouse=True)
def _unknown_speedups() -> Iterator[None]:
    masking._native_mask.cache_clear()
    yield
    masking._native_mask.cache_clear()


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 4095, 4096, 8191, 8192, 8195, 70_001])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_masking_is_what_rfc_6455_says(size: int, kind: type) -> None:
    data = payload_of(size)
    expected = bytes(byte ^ KEY[at % 4] for at, byte in enumerate(data))
    assert masking.mask(kind(data), KEY) == expected


def test_a_native_mask_is_used_for_large_payloads_if_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    package, speedups = ModuleType("websockets"), ModuleType("websockets.speedups")
    monkeypatch.setattr(speedups, "apply_mask", lambda data, _: b"native", raising=False)
    monkeypatch.setitem(sys.modules, "websockets", package)
    monkeypatch.setitem(sys.modules, "websockets.speedups", speedups)
    assert masking.mask(bytes(4096), KEY) == b"native"
    assert masking.mask(bytes(4), KEY) == KEY
