"""Draws docs/limits.md from the data classes that hold the bounds, and from their docstrings."""

from __future__ import annotations

import ast
import inspect
from typing import cast

from pie_anyio.server import SERVER_LIMITS, RunnerLimits
from pie_proto import DEFAULT_LIMITS
from pie_proto.dialects import Capabilities
from pie_proto.families import FAMILIES

INTRODUCTION = """\
# Limits

Drawn by `make docs` from the data classes named here. Do not edit by hand. Sizes are in bytes,
times in seconds.

Nothing that a peer only announces is allocated before it arrives. What is over a bound either
waits, or ends in an error that says so ([errors.md](errors.md)).
"""

LIMITS = """\
## Limits

`pie_proto.Limits`, the bounds of one conversation, for a client and for a server. Pass your own:
`PieClient(uri, limits=Limits(request_grace=30.0))`; `serve(limits=…)`;
`ClientConnection(…, limits=…)`. Bounds that contradict each other are a `ValueError`.
"""

RUNNER_LIMITS = """\
## RunnerLimits

`pie_anyio.server.RunnerLimits`: what instances may take on the
[embedded server](embedded-server.md), and how many there may be. Pass your own with
`serve(runner_limits=…)`.
"""

CAPABILITIES = """\
## What the server takes

`Capabilities` of each family of servers: facts about them, not settings. Content is cut to the
first; what is over the others is refused with `LocalProtocolError`, and nothing is sent. Those of
`process-0.3` are assumed.
"""

KIB, MIB, TIB = 1 << 10, 1 << 20, 1 << 40


def reasons(kind: type) -> dict[str, str]:
    """What stands below the fields of a data class, each on one line, by the field's name."""
    found: dict[str, str] = {}
    name: str | None = None
    for item in cast("ast.ClassDef", ast.parse(inspect.getsource(kind)).body[0]).body:
        match item:
            case ast.AnnAssign(target=ast.Name(id=name)):
                found[name] = ""
            case ast.Expr(value=ast.Constant(value=str() as text)) if name is not None:
                found[name] = " ".join(text.split()).replace("``", "`").replace("|", "\\|")
                name = None
            case _:
                name = None
    return found


def shown(name: str, value: object) -> str:
    """A value as people write it."""
    if value is None:
        return "off"
    if isinstance(value, int) and name.endswith("_bytes") and value < TIB:
        for unit, word in ((MIB, "MiB"), (KIB, "KiB")):
            if value >= unit and value % unit == 0:
                return f"{value // unit:,} {word}"
    if isinstance(value, float):
        return f"{value:g} s"
    return f"{value:,}" if isinstance(value, int) else str(value)


def table(kind: type, values: object) -> str:
    """The fields of a data class: name, value, reason. Every field must give its reason."""
    rows = ["| name | default | why |", "|---|---|---|"]
    for name, reason in reasons(kind).items():
        if not reason:
            raise SystemExit(f"{kind.__name__}.{name} has no docstring")
        rows.append(f"| `{name}` | {shown(name, getattr(values, name))} | {reason} |")
    return "\n".join(rows)


def server_differences() -> str:
    """In what the embedded server's limits differ from the defaults."""
    changed = [
        f"`{name}` is {shown(name, getattr(SERVER_LIMITS, name))}"
        for name in reasons(type(SERVER_LIMITS))
        if getattr(SERVER_LIMITS, name) != getattr(DEFAULT_LIMITS, name)
    ]
    return (
        "The embedded server has the same, `SERVER_LIMITS`, but "
        + ", ".join(changed)
        + ": a client whose user does not read is slow, not dead."
    )


def capabilities() -> str:
    """What the servers of each family take."""
    values = {name: family.capabilities for name, family in FAMILIES.items()}
    heads = [f"`{name}`: servers {of.servers}" for name, of in values.items()]
    rows = [f"| name | {' | '.join(heads)} | what |", "|---" * (len(heads) + 2) + "|"]
    for name, reason in reasons(Capabilities).items():
        bounds = [getattr(of, name) for of in values.values()]
        if all(type(bound) is int for bound in bounds):
            cells = " | ".join(shown(name, bound) for bound in bounds)
            rows.append(f"| `{name}` | {cells} | {reason} |")
    return "\n".join(rows)


def page() -> str:
    """The whole page."""
    parts = [
        INTRODUCTION,
        LIMITS,
        table(type(DEFAULT_LIMITS), DEFAULT_LIMITS),
        server_differences(),
        RUNNER_LIMITS,
        table(RunnerLimits, RunnerLimits()),
        CAPABILITIES,
        capabilities(),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"
