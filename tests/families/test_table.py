"""The table of families has all behaviours and abilities, and every cell of it is a test."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from pie_proto.dialects.abilities import ABILITIES
from tests.families.table import COLUMNS, rows

ROOT = Path(__file__).parent.parent.parent


def behaviours_in(file: str) -> list[str]:
    """The names of the asynchronous tests that stand in a file."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    names = [node.name for node in tree.body if isinstance(node, ast.AsyncFunctionDef)]
    return [name for name in names if name.startswith("test_")]


def test_every_behaviour_has_one_row() -> None:
    behaviours = behaviours_in("tests/families/behaviours.py")
    assert sorted(row.test for row in rows() if not row.only) == sorted(behaviours)
    real = behaviours_in("tests/real_server/test_client.py")
    assert sorted(row.test for row in rows() if row.only) == sorted(real)


def test_every_ability_has_one_row() -> None:
    assert sorted(row.ability.id for row in rows() if row.ability) == sorted(ABILITIES)


def test_every_cell_is_a_test_that_is_collected() -> None:
    files = {file for column in COLUMNS for file in (column.file, column.own_file) if file}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-n", "0", *sorted(files)],
        capture_output=True, text=True, timeout=60, check=False, cwd=ROOT,
    )  # fmt: skip
    collected = done.stdout.splitlines()
    for row in rows():
        for proof in filter(None, map(row.proof, COLUMNS)):
            assert any(test.startswith((f"{proof}]", f"{proof}-")) for test in collected), proof
