"""Writes N pieces of 64 KiB to stdout; N is its argument ``count``.

Each begins with its number, counted from 0, as 16 decimal digits; dots and a newline follow.
"""


async def flood(count=0):
    for number in range(count):
        print(f"{number:016}".ljust(65_535, "."))
    return "flooded"
