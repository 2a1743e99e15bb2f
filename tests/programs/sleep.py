"""Prints a line on stdout, then sleeps for an hour."""

import time


async def sleep():
    print("sleeping")
    # Not that of asyncio: here it returns at once.
    time.sleep(3600)
