"""The arrows between the packages, and what importing them costs, hold."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pie_anyio import Instance, PieClient
from pie_proto.dialects.abilities import ABILITIES
from pie_proto.families import FAMILIES

ROOT = Path(__file__).parent.parent
PACKAGES = ("pie_proto", "pie_files", "pie_anyio", "pie_trio_adapter")

THE_WORLD = {
    "socket", "ssl", "asyncio", "trio", "anyio", "threading", "time", "selectors", "pathlib",
    "mmap", "logging", "random", "concurrent", "multiprocessing", "subprocess", "select",
}  # fmt: skip


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def name_of(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[str]:
    """Every module that a file names in an import, wherever in the file it stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", modules("pie_proto"), ids=name_of)
def test_the_core_imports_nothing_of_the_world(path: Path) -> None:
    assert not {module.split(".")[0] for module in imports(path)} & THE_WORLD


@pytest.mark.parametrize("path", modules("pie_proto"), ids=name_of)
def test_the_core_opens_no_file(path: Path) -> None:
    calls = [
        node.func.id
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    assert "open" not in calls


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("pie_proto", ("pie_files", "pie_anyio", "pie_trio_adapter", "pie")),
        ("pie_files", ("pie_anyio", "pie_trio_adapter", "pie", "anyio", "asyncio", "trio")),
        ("pie_anyio", ("pie_trio_adapter", "pie")),
        ("pie_trio_adapter", ("pie_anyio", "pie", "anyio", "asyncio")),
    ],
)
def test_drivers_import_the_core_and_not_each_other(
    package: str, forbidden: tuple[str, ...]
) -> None:
    for path in modules(package):
        assert not {module.split(".")[0] for module in imports(path)} & set(forbidden), path


@pytest.mark.parametrize(
    ("inner", "outer"),
    [
        ("pie_proto.session", ("websocket", "connection", "link", "frame_reader", "handshake")),
        ("pie_proto.server.session", ("websocket", "connection", "link")),
        ("pie_proto.link", ("dialects", "session", "messages", "commands.Command")),
        ("pie_proto.mailbox", ("dialects", "websocket", "session", "connection")),
        ("pie_proto.dialects.instance", ("session", "connection", "websocket", "mailbox")),
        ("pie_proto.dialects.process.client", ("session", "connection", "websocket", "mailbox")),
        ("pie_proto.dialects.process.server", ("session", "connection", "websocket", "mailbox")),
    ],
)
def test_the_layers_of_the_core_know_only_what_is_below(inner: str, outer: tuple[str, ...]) -> None:
    path = ROOT / (inner.replace(".", "/") + ".py")
    named = set(imports(path))
    assert not {f"pie_proto.{module}" for module in outer} & named


def texts(path: Path) -> Iterator[str]:
    """Every text that stands in a module, but those that its docstrings and ``__all__`` are."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    spared = {
        id(text)
        for node in ast.walk(tree)
        for text in ast.walk(node)
        if (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        or (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__")
    }
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in spared
        ):
            yield node.value


def test_wire_names_appear_only_in_the_dialects() -> None:
    name = re.compile(r"[a-z]+(?:[_-][a-z]+)+")
    files = {path for package in PACKAGES for path in modules(package)}
    dialects = {path for path in files if "dialects" in path.parts}
    # Whatever is spelled like one there, is one; but for words that our own API has, too.
    wire_names = (
        {text for path in dialects for text in texts(path) if name.fullmatch(text)}
        - vars(PieClient).keys()
        - vars(Instance).keys()
        - ABILITIES.keys()
    )
    for family in FAMILIES.values():
        wire_names -= family.capabilities.query_subjects
    # Of either vocabulary, and of the opening request.
    assert {"corr_id", "instance_event", "process_event", "x-pie-identity"} <= wire_names
    assert len(wire_names) > 30
    # A field of our commands, and of both vocabularies: when one is checked, it is named.
    wire_names -= {"instance_id"}
    for path in files - dialects:
        found = {word for text in texts(path) for word in name.findall(text)}
        assert not found & wire_names, path


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_says_first_what_it_is_for(package: str) -> None:
    for path in modules(package):
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        assert docstring, f"{path} does not say what it is for"
        assert len(docstring.splitlines()[0]) > 15, path


def loaded_by(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after ``statement``."""
    code = f"import sys\n{statement}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        check=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return set(run.stdout.split())


@pytest.mark.parametrize(
    ("statement", "unwanted"),
    [
        ("import pie_proto", {"anyio", "asyncio", "trio", "cryptography", "wasmtime", "ssl"}),
        ("import pie_proto.server", {"anyio", "asyncio", "trio", "cryptography", "wasmtime"}),
        ("import pie_files", {"anyio", "asyncio", "trio", "cryptography"}),
        ("import pie_anyio", {"trio", "wasmtime", "cryptography"}),
        ("import pie_anyio.server", {"trio", "wasmtime", "cryptography"}),
        ("import pie_trio_adapter", {"anyio", "wasmtime", "cryptography"}),
        ("import pie", {"trio", "wasmtime", "cryptography"}),
    ],
)
def test_an_import_loads_no_more_than_it_needs(statement: str, unwanted: set[str]) -> None:
    assert not loaded_by(statement) & unwanted


def test_the_guides_import_name_has_the_same_names() -> None:
    import pie
    import pie_anyio

    assert pie.PieClient is pie_anyio.PieClient
    assert all(getattr(pie, name) is getattr(pie_anyio, name) for name in pie_anyio.__all__)


@pytest.mark.parametrize(
    "package", ["pie_proto", "pie_proto.server", "pie_anyio", "pie_trio_adapter"]
)
def test_a_package_leaks_no_import(package: str) -> None:
    code = (
        f"import {package} as p, types\n"
        "names = {n for n in vars(p) if not n.startswith('_')}\n"
        "subs = {n for n in names if isinstance(getattr(p, n), types.ModuleType)}\n"
        "print(*(names - subs - set(p.__all__)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60
    )
    assert run.stdout.split() == []
