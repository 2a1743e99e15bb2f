"""Says "ready" when it waits for a blob, and sends that back, until one is empty."""

import asyncio

from inferlet import session


async def files():
    while data := await next_file():
        session.send_file(data)
    return "an empty blob came"


async def next_file():
    # What comes when nobody waits is dropped: so it waits first, and says so then.
    data, _ = await asyncio.gather(session.receive_file(), say_ready())
    return data


async def say_ready():
    session.send("ready")
