"""Draws docs/families.md from `tests/families/table.toml` and what the dialects say they lack."""

from __future__ import annotations

from itertools import groupby

from pie_proto.dialects.abilities import ABILITIES
from pie_proto.families import FAMILIES
from tests.families.table import COLUMNS, Column, Row, rows

INTRODUCTION = """\
# What works with which server

Drawn by `make docs` from `tests/families/table.toml` and `pie_proto/dialects/abilities.py`. Do not
edit by hand.

One API for servers of every family. What one does with it has a row here; each cell is a test, the
same body in every column: "yes" where it is done, "no" where the same test shows what comes
instead, which stands below. The first three columns are the embedded server, `serve(dialect=…)`;
the last is a server that people run, installed from the package index. Each column runs on asyncio;
`process`, of either make, also on trio and through the trio adapter.

What is tried with programs in Python, or with much memory, is tried beside the real server alone.
Of `process-0.3`, which is servers 0.3 to 0.4, some is assumed ([protocol.md](protocol.md)).
"""

LACKS = """\
## What comes instead

These are the words of the errors, too. What is refused is refused before anything is sent.
`pie_proto.lacks(client.server)` has what stands here for the server at hand.
"""


def cell(row: Row, column: Column) -> str:
    """Whether a column can do what a row is about, and the test that shows it."""
    proof = row.proof(column)
    if proof is None:
        return ""
    file, _, test = proof.partition("::")
    return f'[{"yes" if row.holds(column) else "no"}](../{file} "{test}…]")'


def line(row: Row) -> str:
    """One row of the page."""
    about = f"{row.about} ({row.ability.id})" if row.ability else row.about
    about += f"; {row.note}" if row.note else ""
    return f"| {' | '.join([about, *(cell(row, column) for column in COLUMNS)])} |"


def lacks() -> str:
    """What families do that lack something."""
    lines = ["| ability | lacking in | these servers | so |", "|---|---|---|---|"]
    for ability in ABILITIES.values():
        without = [f"`{name}`" for name, of in FAMILIES.items() if not ability.has(of.capabilities)]
        lines.append(
            f"| {ability.id} | {', '.join(without)} | {ability.lack} | {ability.instead} |"
        )
    return "\n".join(lines)


def page() -> str:
    """The whole page."""
    parts = [INTRODUCTION.strip()]
    titles = " | ".join(column.title for column in COLUMNS)
    head = [f"| what one does | {titles} |", "|---" * (1 + len(COLUMNS)) + "|"]
    for name, group in groupby(rows(), key=lambda row: row.group):
        parts += [f"## {name}", "\n".join([*head, *map(line, group)])]
    parts += [LACKS.strip(), lacks()]
    return "\n\n".join(parts) + "\n"
