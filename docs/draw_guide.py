"""Draws docs/guide.md from the table of the guide's promises, `tests/guide_table.toml`."""

from __future__ import annotations

from itertools import groupby

from tests.promises import Promise, promises

INTRODUCTION = """\
# The user guide's promises

Drawn by `make docs` from `tests/guide_table.toml`. Do not edit by hand.

Pie's user guide describes a Python client: methods, parameters, kinds of event, kinds of key. Each
of them has a row here: what is promised, the test that proves it, and a bug that this test finds.
That it finds it is tried: `make prove` takes copies of the project, puts the bugs in, one at a
time, and fails if a test that is named here passes all the same. The last two parts are about what
the guide does not have: more of the client, and the client that is native to trio.
"""


def code(text: str) -> str:
    """A piece of code in a cell."""
    return f"`{text}`".replace("|", "\\|")


def row(promise: Promise) -> str:
    """One row of the page."""
    proof = f"[{code(promise.test)}](../{promise.test_file})"
    cells = (code(promise.about), promise.promise, proof, promise.bug)
    return f"| {' | '.join(cell.strip() for cell in cells)} |"


def page() -> str:
    """The whole page."""
    parts = [INTRODUCTION.strip(), f"There are {len(promises())} rows."]
    for name, rows in groupby(promises(), key=lambda promise: promise.group):
        head = ["| what | promise | proved by | a bug that it finds |", "|---|---|---|---|"]
        parts += [f"## {name}", "\n".join([*head, *map(row, rows)])]
    return "\n\n".join(parts) + "\n"
