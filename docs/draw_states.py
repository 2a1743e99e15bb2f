"""Draws docs/states.md from the transition tables, so that diagrams cannot drift from the code."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from enum import Enum

from pie_proto import states

TABLES: tuple[tuple[str, str, Mapping[tuple[Enum, Enum], Enum], type[Enum]], ...] = (
    (
        "Connection",
        "One connection, seen from either side.",
        states.CONNECTION,
        states.ConnectionState,
    ),
    (
        "Authentication",
        "The client's side of authentication.",
        states.AUTHENTICATION,
        states.AuthenticationState,
    ),
    (
        "Authentication, server",
        "The server's side of authentication. Whatever is not drawn ends the session.",
        states.SERVER_AUTHENTICATION,
        states.ServerAuthenticationState,
    ),
    ("Transfer", "One upload of a client's.", states.TRANSFER, states.TransferState),
    (
        "Detached launch",
        (
            "One detached launch, where the server does not say which instance it made: it is told "
            "by what is new in the list of instances. One is under way at a time."
        ),
        states.DETACHED_LAUNCH,
        states.DetachedLaunchState,
    ),
    (
        "Instance",
        "What one instance is to one connection.",
        states.INSTANCE,
        states.InstanceState,
    ),
)


def diagram(table: Mapping[tuple[Enum, Enum], Enum], kind: type[Enum]) -> str:
    """A Mermaid state diagram; inputs that lead the same way share an arrow."""
    arrows: defaultdict[tuple[Enum, Enum], list[str]] = defaultdict(list)
    for (before, happened), after in table.items():
        arrows[before, after].append(happened.value)
    first = next(iter(kind))
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {first.name}"]
    lines += [f"    {state.name} : {state.value}" for state in kind]
    lines += [
        f"    {before.name} --> {after.name} : {', '.join(inputs)}"
        for (before, after), inputs in arrows.items()
    ]
    return "\n".join([*lines, "```"])


def page() -> str:
    """The whole page."""
    parts = [
        "# States",
        (
            "Drawn by `make docs` from the tables in `pie_proto/states.py`. Do not edit by hand. "
            "An input that has no arrow from a state is not legal there."
        ),
    ]
    for title, text, table, kind in TABLES:
        parts += [f"## {title}", text, diagram(table, kind)]
    return "\n\n".join(parts) + "\n"
