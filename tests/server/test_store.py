"""Names and versions of programs, and programs that many ask for at a time."""

from __future__ import annotations

import random
from pathlib import Path

import anyio
import pytest

from pie_anyio.server.runner import Program, ProgramError, Runner
from pie_anyio.server.store import NotFound, ProgramName, ProgramStore, Registry
from tests.programs import component, text

pytestmark = pytest.mark.anyio

SECONDS = 20


class CountingCompiler:
    """A runner's compiler, and what it was given."""

    def __init__(self) -> None:
        self.given: list[bytes | str] = []
        self._runner = Runner(cache=False)

    def __call__(self, data: bytes | str) -> Program:
        self.given.append(data)
        return self._runner.compile(data)


@pytest.fixture
def compiler() -> CountingCompiler:
    return CountingCompiler()


@pytest.fixture
def store(compiler: CountingCompiler) -> ProgramStore:
    return ProgramStore(compiler)


async def test_a_program_is_compiled_once_for_all_who_want_it(
    store: ProgramStore, compiler: CountingCompiler
) -> None:
    data = component("hello")
    programs = []

    async def add() -> None:
        programs.append(await store.add("key", lambda: data))

    async def get() -> None:
        assert await store.exists("key")
        programs.append(await store.get("key"))

    with anyio.fail_after(SECONDS):
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(add)
            await anyio.wait_all_tasks_blocked()
            for _ in range(5):
                tasks.start_soon(get)
    assert compiler.given == [data]
    assert len(programs) == 10
    assert len(set(programs)) == len(store) == 1


async def test_a_program_that_does_not_compile_is_not_there(store: ProgramStore) -> None:
    with pytest.raises(ProgramError):
        await store.add("key", lambda: b"nonsense")
    assert not await store.exists("key")
    with pytest.raises(NotFound, match="Program not found: key"):
        await store.get("key")
    # And the next who tries may succeed.
    assert await store.add("key", lambda: component("hello"))


async def test_a_file_that_changes_is_compiled_anew(
    tmp_path: Path, store: ProgramStore, compiler: CountingCompiler
) -> None:
    registry = Registry(tmp_path)
    (tmp_path / "tool.wat").write_text(text("hello"))
    first, name = await registry.find("tool", store)
    assert name == "tool@latest"
    assert await registry.find("std/tool@latest", store) == (first, name)
    (tmp_path / "tool.wat").write_text(text("return_value"))
    assert (await registry.find("tool", store))[0] is not first
    (tmp_path / "tool.wasm").write_bytes(component("hello"))
    await registry.find("tool", store)
    assert compiler.given == [text("hello"), text("return_value"), component("hello")]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("tool", "std/tool@latest"),
        ("tool@1.2", "std/tool@1.2"),
        ("mine/tool", "mine/tool@latest"),
        ("mine/My-tool_2@0.1.0-rc.1+build", "mine/My-tool_2@0.1.0-rc.1+build"),
    ],
)
def test_names(name: str, meant: str) -> None:
    assert str(ProgramName.parse(name)) == meant


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../tool",
        "mine/../tool",
        "/tool",
        "mine/",
        "a/b/c",
        "tool@",
        "@1",
        "tool@../x",
        "tool@.",
        "tool@1/2",
        "tool@1@2",
        "tool\n",
        "tool\0",
        "tööl",
        "c:tool",
        "a\\b",
        "*",
        "t" * 65,
    ],
)
def test_what_is_no_name_is_not_found(name: str) -> None:
    with pytest.raises(NotFound, match="is no program name"):
        ProgramName.parse(name)


async def test_latest_is_the_highest_version(tmp_path: Path, store: ProgramStore) -> None:
    versions = [
        "x",
        "0.9",
        "0.10-alpha",
        "0.10-rc.2",
        "0.10-rc.10",
        "0.10",
        "0.10.1",
        "1.0-a",
        "1.0",
    ]
    order = random.sample(range(len(versions)), len(versions))
    registry = Registry(tmp_path)
    seen = -1
    for position in order:
        name = f"tool@{versions[position]}"
        (tmp_path / f"{name}.wat").write_text(text("hello") + f";; {name}\n")
        # Names that only begin alike are others.
        (tmp_path / f"tool-{position}@99.wat").write_text(text("hello"))
        seen = max(seen, position)
        latest = await registry.find("tool", store)
        assert latest == await registry.find(f"tool@{versions[seen]}", store)
