"""The families of servers by the names that people give: `family_named`."""

from __future__ import annotations

from typing import Final

from pie_proto.dialects import Dialect
from pie_proto.dialects.instance import INSTANCE
from pie_proto.dialects.process import PROCESS_0_3, PROCESS_0_5

__all__ = ["FAMILIES", "family_named"]

FAMILIES: Final[dict[str, Dialect]] = {
    "instance": INSTANCE,
    "process": PROCESS_0_5,
    "process-0.3": PROCESS_0_3,
}
"""Every family, oldest vocabulary first; the plain name of one is its newest servers."""


def family_named(name: str) -> Dialect:
    """The family of this name. Raises `ValueError` that lists the names there are."""
    family = FAMILIES.get(name)
    if family is None:
        names = ", ".join(map(repr, FAMILIES))
        raise ValueError(f"{name!r} is no family of servers; there are {names}")
    return family
