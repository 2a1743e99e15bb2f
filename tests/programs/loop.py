"""Prints a line on stdout, then spins for ever."""


async def loop():
    print("looping")
    while True:
        pass
