"""Print the lowest version of each package that ``pyproject.toml`` allows, as pip's constraints.

Each requirement names a release as its floor (``anyio>=4.11``), so the floor itself is installed,
or pip fails: a floor that another requirement makes unreachable is not one.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

_FLOOR = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?>=([0-9][0-9a-z.]*)(?:,<[0-9.]+)?(?:; .+)?")


def constraints(pyproject: Path) -> list[str]:
    """One line ``name==version`` for every requirement but the project itself."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    requirements = [*project["dependencies"]]
    for extra in ("trio", "server", "ssh", "test"):
        requirements += project["optional-dependencies"][extra]
    lines = []
    for requirement in requirements:
        if requirement.startswith(f"{project['name']}["):
            continue
        floor = _FLOOR.fullmatch(requirement)
        if floor is None:
            sys.exit(f"{requirement!r} has no lower bound of the form NAME>=VERSION")
        lines.append(f"{floor[1]}=={floor[2]}")
    return lines


if __name__ == "__main__":
    print("\n".join(constraints(Path(__file__).parent.parent / "pyproject.toml")))
