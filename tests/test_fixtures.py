"""What holds for the fixtures of these tests."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.code_blocks import ROOT

SCOPES = {"CancelScope", "fail_after", "fail_at", "move_on_after", "move_on_at"}


def problems(source: str) -> Iterator[str]:
    """The asynchronous fixtures that yield inside of a cancel scope of their own."""
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.AsyncFunctionDef):
            continue
        if not any("fixture" in ast.unparse(name) for name in function.decorator_list):
            continue
        for block in ast.walk(function):
            if isinstance(block, ast.With | ast.AsyncWith):
                entered = {ast.unparse(item.context_expr) for item in block.items}
                names = {text.partition("(")[0].rpartition(".")[2] for text in entered}
                if names & SCOPES and any(isinstance(node, ast.Yield) for node in ast.walk(block)):
                    yield function.name


def test_a_fixture_that_yields_in_a_cancel_scope_is_found() -> None:
    fixture = """
@pytest.fixture
async def server():
    with anyio.fail_after(1):
        async with serve() as server:
            yield server
"""
    assert list(problems(fixture)) == ["server"]


def test_no_fixture_yields_in_a_cancel_scope() -> None:
    files = [*(ROOT / "tests").rglob("*.py")]
    found = {path.name: [*problems(path.read_text(encoding="utf-8"))] for path in files}
    assert {name: fixtures for name, fixtures in found.items() if fixtures} == {}
