"""Sends every message back with "echo: " before it, until it is told "stop"."""

from inferlet import session


async def echo():
    while (text := await session.receive()) != "stop":
        session.send("echo: " + text)
    return "stopped"
