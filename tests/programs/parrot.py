"""Sends every message back as it is, of any size, until it is told "stop"; returns how many."""

from inferlet import session


async def parrot():
    count = 0
    while (text := await session.receive()) != "stop":
        session.send(text)
        count += 1
    return count
