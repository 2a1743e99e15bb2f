"""Small programs to run in tests and demonstrations, as component text, one file each."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import wasmtime

__all__ = ["component", "text"]


def text(name: str) -> str:
    """The text of the program ``name``."""
    return Path(__file__).with_name(f"{name}.wat").read_text(encoding="utf-8")


@cache
def component(name: str) -> bytes:
    """The program ``name`` as a binary component."""
    return bytes(wasmtime.wat2wasm(text(name)))
