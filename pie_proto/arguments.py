"""From a list of arguments to a JSON object and back, for programs that take an input instead.

The rules, with ``["--prompt", "Hi", "--n", "3", "--flag"]`` as ``{"prompt": "Hi", "n": 3, "flag":
true}``:

- ``--name value`` and ``--name=value`` are a name and its value. ``-`` within a name is written
  ``_``: programs receive the names as keyword arguments.
- An option that another one follows, or nothing, is ``true``. Whatever begins with ``--`` is an
  option: a value that does is written ``--name=--value``. A single dash begins a value: ``-1``.
- A value that is a JSON number, ``true``, ``false``, ``null``, or a JSON list, object or string is
  that; so ``--id="007"``, quotes included, stays text. Whatever else there is, is text as it is.
- A name that stands there twice, and an argument that belongs to no name, are refused: to an object
  they mean nothing. A list is written ``--name=[1,2]``. A value in JSON that has a key twice is
  refused, too.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from pie_proto.errors import LocalProtocolError
from pie_proto.json_text import RepeatedKey, read_json

__all__ = ["arguments_from", "input_from"]


def input_from(arguments: Sequence[str]) -> str:
    """The JSON text of the object that ``arguments`` mean. Raises `LocalProtocolError`."""
    values: dict[str, str] = {}
    rest = list(reversed(arguments))
    while rest:
        argument = rest.pop()
        option, has_value, text = argument.partition("=")
        name = option[2:].replace("-", "_")
        if not option.startswith("--") or not name:
            raise LocalProtocolError(
                f"the argument {argument[:80]!r} belongs to no --name: these servers take an "
                "object, so write --name value, or give input="
            )
        if name in values:
            raise LocalProtocolError(
                f"the argument --{name} is there twice: write a list as --{name}=[1,2], or give "
                "input="
            )
        if has_value:
            values[name] = _json(name, text)
        elif rest and not rest[-1].startswith("--"):
            values[name] = _json(name, rest.pop())
        else:
            values[name] = "true"
    return "{" + ", ".join(f"{json.dumps(name)}: {text}" for name, text in values.items()) + "}"


def arguments_from(text: str) -> tuple[str, ...]:
    """The arguments that mean an input, for people to read; the input as it stands if none do."""
    try:
        match read_json(text):
            case dict() as values:
                arguments = tuple(
                    argument for name, value in values.items() for argument in _shown(name, value)
                )
                # An input may have names that no argument can.
                return arguments if read_json(input_from(arguments)) == values else (text,)
            case _:
                return (text,)
    except (ValueError, RecursionError, LocalProtocolError):
        return (text,)


def _json(name: str, text: str) -> str:
    # As it is spelled: a number keeps all its digits.
    try:
        read_json(text)
    except RepeatedKey as exc:
        raise LocalProtocolError(
            f"the argument --{name} cannot be read as JSON: {exc}. Write a text as a JSON string, "
            "with quotes, or give input="
        ) from exc
    except ValueError:
        return json.dumps(text)
    return text


def _is_no_json(text: str) -> bool:
    try:
        read_json(text)
    except ValueError as exc:
        return not isinstance(exc, RepeatedKey)
    return False


def _shown(name: str, value: object) -> tuple[str, ...]:
    if value is True:
        return (f"--{name}",)
    # As it stands, unless that would be read as something else.
    text = json.dumps(value)
    if isinstance(value, str) and _is_no_json(value):
        text = value
    return (f"--{name}={text}",) if text.startswith("--") else (f"--{name}", text)
