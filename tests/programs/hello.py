"""Prints a line on stdout and one on stderr, and returns a value."""

import sys


async def hello():
    print("hello from pie")
    print("a warning", file=sys.stderr)
    return "done"
