"""Prints each argument as a line on stdout, and returns the first."""

import json


async def arguments(**given):
    said = [argument for name, value in given.items() for argument in as_arguments(name, value)]
    for argument in said:
        print(argument)
    return said[0] if said else ""


def as_arguments(name, value):
    # A flag that is true is a name alone.
    if value is True:
        return [f"--{name}"]
    return [f"--{name}", value if isinstance(value, str) else json.dumps(value)]
