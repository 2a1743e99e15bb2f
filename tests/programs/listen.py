"""Takes whatever it is given, and waits for a message, which it returns."""

from inferlet import session


async def listen(**_given):
    return await session.receive()
