"""What the documentation shows works, and what it names exists.

What a block of Python is, and so what is done with it, its fence says: see `tests.code_blocks`. The
samples, which want a server, have tests of their own.
"""

from __future__ import annotations

import ast
import builtins
import dataclasses
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import anyio
import pytest

import pie_anyio
import pie_anyio.server
import pie_proto
import pie_proto.server
import pie_trio_adapter
from pie_anyio.server import serve
from pie_proto.dialects import ProgramsBy, instance
from pie_proto.dialects.process import client as process_client
from pie_proto.dialects.process import server as process_server
from pie_proto.families import FAMILIES
from tests.code_blocks import ROOT, Block, blocks, prose
from tests.programs.table import Program

DOCS = ROOT / "docs"
PROGRAMS = ROOT / "tests" / "programs"
PAGES = [*sorted(DOCS.glob("*.md")), *sorted(ROOT.glob("*.md"))]
# Old entries of the change log name what was there then.
OWN_PAGES = [page for page in PAGES if page.name != "CHANGELOG.md"]
PACKAGES = ("pie_proto", "pie_files", "pie_anyio", "pie_trio_adapter")
SECONDS = 30


def name_of(page: object) -> str:
    return str(page.relative_to(ROOT)) if isinstance(page, Path) else str(page)


# ------------------------------------------------------------------------------------------- code

BLOCKS = [block for page in OWN_PAGES for block in blocks(page)]
WHOLE = [block for block in BLOCKS if block.kind == "python"]
FILES = [block for block in BLOCKS if block.kind == "python PATH"]
KINDS = {"python", "python fragment", "python PATH", "python sample", "python piece"}


def run_python(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        capture_output=True, text=True, timeout=SECONDS, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_every_block_of_python_says_what_it_is() -> None:
    assert {block.kind for block in BLOCKS} == KINDS


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_python_in_the_docs_compiles(block: Block) -> None:
    compile(block.code, str(block), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize("block", WHOLE, ids=str)
def test_whole_programs_in_the_docs_print_what_their_comments_say(block: Block) -> None:
    printed = run_python("-c", block.code).splitlines()
    promised = re.findall(r"print\(.*\)  # (.*)", block.code)
    assert printed == promised


@pytest.mark.parametrize("block", FILES, ids=str)
def test_a_file_in_the_docs_is_that_file(block: Block) -> None:
    path = block.info.partition(" ")[2]
    assert block.code == (ROOT / path).read_text(encoding="utf-8"), f"copy {path} to {block}"


@pytest.mark.anyio
async def test_the_core_runs_on_a_blocking_socket() -> None:
    with anyio.fail_after(SECONDS):
        async with serve() as server:
            printed = await anyio.to_thread.run_sync(
                run_python,
                "examples/blocking_socket.py", "127.0.0.1", str(server.port),
                str(PROGRAMS / "arguments.wat"), "left", "right",
            )  # fmt: skip
    lines = printed.splitlines()
    said = "".join(ast.literal_eval(line[8:]) for line in lines if line.startswith("Stdout: "))
    assert said == "left\nright\n"
    assert lines[-1] == "Completed: 'left'"


def test_the_manifest_in_the_docs_is_like_those_that_a_real_server_is_given() -> None:
    page = (DOCS / "usage.md").read_text(encoding="utf-8")
    assert re.findall(r"```toml\n(.*?)```", page, re.DOTALL) == [Program("helper").manifest()]


def test_the_drawn_pages_are_up_to_date() -> None:
    run_python("docs/draw.py", "--check")


def section(page: str, heading: str) -> str:
    """What stands under a heading of a page, up to the next heading."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.split(rf"\n#+ {re.escape(heading)}\n", text)[1].partition("\n#")[0]


# ------------------------------------------------------------------------------------------ links


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings make, as the usual renderers have them."""
    headings = re.findall(r"^#+ +(.+?) *$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_resolve(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{target} leads nowhere"
        assert linked.is_relative_to(ROOT), f"{target} leads out of the project"
        assert not anchor or anchor in anchors(linked), f"{target} has no such heading"


def test_the_index_lists_every_page() -> None:
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    for page in DOCS.glob("*.md"):
        assert page.name == "README.md" or f"({page.name})" in index


# ------------------------------------------------------------------------------------------ names

PUBLIC = {
    name: getattr(module, name)
    for module in (pie_proto.server, pie_anyio.server, pie_proto, pie_anyio)
    for name in module.__all__
}

_CAMEL = re.compile(r"(?:[A-Z][a-z]+){2,}")
_DOTTED = re.compile(r"([A-Z][A-Za-z]+)\.([a-z_]+)(?:\(.*\))?")
_CALL = re.compile(r"(?:[A-Za-z]+\.)?([a-z_]+)\([^)]*\)")
_MODULE = re.compile(r"[a-z_/]+\.py")


@cache
def defined() -> frozenset[str]:
    """Every class, function and field that the packages define, private ones too."""
    names: set[str] = set()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                match node:
                    case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                        names.add(node.name)
                    case ast.AnnAssign(target=ast.Name(id=name)):
                        names.add(name)
    return frozenset(names)


@cache
def module_names() -> frozenset[str]:
    return frozenset(path.name for path in ROOT.rglob("*.py") if ".venv" not in path.parts)


def problem_with(code: str) -> str | None:
    """What is wrong with a piece of code in the text, if it looks like one of our names."""
    if (dotted := _DOTTED.fullmatch(code)) and dotted[1] in PUBLIC:
        owner = PUBLIC[dotted[1]]
        known = hasattr(owner, dotted[2]) or dotted[2] in getattr(owner, "__annotations__", {})
        known = known or dotted[2] in _set_in_init(owner)
        return None if known else f"{dotted[1]} has no {dotted[2]}"
    if _CAMEL.fullmatch(code):
        known = code in PUBLIC or code in defined() or hasattr(builtins, code)
        return None if known or code in _OTHERS else "nobody defines it"
    if call := _CALL.fullmatch(code):
        return None if call[1] in defined() or hasattr(builtins, call[1]) else "no such function"
    if _MODULE.fullmatch(code):
        if "/" in code:
            return None if (ROOT / code).exists() else "no such file"
        return None if code in module_names() else "no such module"
    return None


def _set_in_init(owner: object) -> tuple[str, ...]:
    init = getattr(owner, "__init__", None)
    code = getattr(init, "__code__", None)
    return () if code is None else (*code.co_names, *code.co_varnames)


# Of other libraries, and what other people call things.
_OTHERS = {"NamedTuple", "UnicodeDecodeError"}


@pytest.mark.parametrize("page", OWN_PAGES, ids=name_of)
def test_names_in_the_text_exist(page: Path) -> None:
    found = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", prose(page))
    problems = {code: problem for code in found if (problem := problem_with(code))}
    assert problems == {}


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("errors.md", [n for n in pie_anyio.__all__ if n.endswith(("Error", "Failed", "Lost"))]),
        ("limits.md", list(pie_proto.Limits.__dataclass_fields__)),
    ],
)
def test_nothing_is_left_out(page: str, names: list[str]) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    assert names
    assert [name for name in names if f"`{name}`" not in text] == []


@pytest.mark.parametrize(
    ("heading", "messages"),
    [
        ("Client to server", {*instance._CLIENT_MESSAGES}),
        ("Server to client", {*instance._SERVER_MESSAGES}),
        ("What a client says", {*process_server._CLIENT_MESSAGES}),
        ("What a server says", {*process_client.SERVER_MESSAGES, "turn_done"}),
    ],
)
def test_the_tables_of_the_wire_list_what_the_dialect_reads(
    heading: str, messages: set[str]
) -> None:
    table = section("protocol.md", heading).partition("\n| `event` |")[0]
    listed = set(re.findall(r"^\| `([a-z_]+)` \|", table, re.MULTILINE)) - {"type"}
    assert listed == messages


@pytest.mark.parametrize("heading", ["Client to server", "What a client says"])
def test_the_tables_of_the_wire_name_every_command(heading: str) -> None:
    for command in pie_proto.Command.__args__:
        assert f"`{command.__name__}`" in section("protocol.md", heading)


def test_the_table_of_abilities_says_what_the_dialects_say() -> None:
    def shown(value: object) -> str:
        match value:
            case bool() | None:
                return "yes" if value else "no"
            case frozenset():
                return ", ".join(f"`{item}`" for item in sorted(value))
            case ProgramsBy():
                return value.value
            case _:
                return f"`{value}`"

    names = ("instance", "process-0.3", "process")
    abilities = [FAMILIES[name].capabilities for name in names]
    table = section("protocol.md", "What servers of each family can do")
    assert f"| ability | {' | '.join(f'`{name}`' for name in names)} |" in table
    for field in dataclasses.fields(abilities[0]):
        values = [getattr(of, field.name) for of in abilities]
        if field.name not in {"name", "servers"} and type(values[0]) is not int:
            assert f"\n| `{field.name}` | {' | '.join(map(shown, values))} |" in table


def test_the_command_line_of_the_server_is_documented_whole() -> None:
    options = set(re.findall(r"--[a-z-]+", run_python("-m", "pie_anyio.server", "--help")))
    text = (DOCS / "embedded-server.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `(--[a-z-]+)", text, re.MULTILINE))
    assert documented == options - {"--help"}


def test_the_commands_of_contributing_are_the_targets_of_make() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    documented = re.findall(r"^\| `make ([a-z-]+)` \|", page, re.MULTILINE)
    assert sorted(documented) == sorted(targets - {"help"})


@pytest.mark.parametrize("page", OWN_PAGES, ids=name_of)
def test_commands_of_make_in_the_text_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"`make ([a-z-]+)`|^    make ([a-z-]+)$", text, re.MULTILINE)
    assert {code or line for code, line in named} <= targets


def test_every_argument_of_serve_is_documented() -> None:
    text = (DOCS / "embedded-server.md").read_text(encoding="utf-8")
    for name in serve.__annotations__:
        assert name == "return" or f"`{name}`" in text


def test_the_page_names_what_the_adapter_lacks_and_has_of_its_own() -> None:
    section = (ROOT / "docs" / "usage.md").read_text(encoding="utf-8")
    section = section.partition("## On trio, without anyio")[2]
    differing = set(pie_anyio.__all__) ^ set(pie_trio_adapter.__all__)
    assert {name for name in differing if name not in section} == set()


def test_the_first_page_on_architecture_names_every_package() -> None:
    start = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").partition("##")[0]
    packages = {path.parent.name for path in ROOT.glob("pie_*/__init__.py")}
    assert {name for name in packages if f"`{name}`" not in start} == set()


def test_the_table_for_contributors_has_every_target_of_make() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| `make ([a-z-]+)`", page, re.MULTILINE))
    assert named == targets - {"help"}
