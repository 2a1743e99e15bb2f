"""Programs built from source: once for each release of their tools, and whenever they change."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.peers.environments import keep, npm_package, run, tool

_HERE = Path(__file__).parent
_WIT = _HERE / "wit"
_WORLD = (_WIT / "inferlet.wit", _WIT / "deps" / "io" / "poll.wit")

# On one core of a busy machine, the first time; C's standard library is compiled, too.
_BUILD_SECONDS = 150


@pytest.fixture(scope="session")
def python_program() -> bytes:
    """A program in Python, built by componentize-py: 18 MB, an interpreter and all."""
    source = _HERE / "python" / "app.py"

    def build(folder: Path) -> None:
        componentize = tool("componentize-py", "componentize-py")
        options = ["--wit-path", str(_WIT), "--world", "inferlet", "componentize", "app"]
        paths = ["--python-path", str(source.parent), "--output", str(folder / "app.wasm")]
        run([componentize, *options, *paths], seconds=_BUILD_SECONDS)

    return (keep("program-python", build, source, *_WORLD) / "app.wasm").read_bytes()


@pytest.fixture(scope="session")
def c_program() -> bytes:
    """A program in C, built by zig's clang: 54 KB, with C's standard library."""
    source = _HERE / "c" / "app.c"

    def build(folder: Path) -> None:
        zig = [tool("zig", "python"), "-m", "ziglang"]
        options = ["-target", "wasm32-wasi", "-mexec-model=reactor", "-Os"]
        core = folder / "core.wasm"
        run([*zig, "cc", *options, "-o", str(core), str(source)], seconds=_BUILD_SECONDS)
        component = [tool("wasm-tools", "wasm-tools"), "component"]
        typed = folder / "typed.wasm"
        run([*component, "embed", str(_WIT), "--world", "inferlet", str(core), "-o", str(typed)])
        adapter = npm_package("jco") / "lib" / "wasi_snapshot_preview1.reactor.wasm"
        adapt = ["--adapt", f"wasi_snapshot_preview1={adapter}"]
        run([*component, "new", str(typed), *adapt, "-o", str(folder / "app.wasm")])

    return (keep("program-c", build, source, *_WORLD) / "app.wasm").read_bytes()
