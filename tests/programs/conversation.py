"""A bit of everything: greets, prints its arguments, says "ready", answers one message, sends one
blob back, streams a few lines and returns a value.
"""

import asyncio
import json
import sys

from inferlet import session


async def conversation(**given):
    print("hello from pie")
    for name, value in given.items():
        print(f"argument: --{name}")
        if value is not True:
            print(f"argument: {value if isinstance(value, str) else json.dumps(value)}")
    print("this goes to stderr", file=sys.stderr)
    session.send("ready")
    message = await session.receive()
    # What comes when nobody waits is dropped: so it waits first, and answers then.
    data, _ = await asyncio.gather(session.receive_file(), answer(message))
    session.send_file(data)
    for number in (1, 2, 3):
        print("tick", number)
    return "goodbye"


async def answer(message):
    session.send("you said: " + message)
