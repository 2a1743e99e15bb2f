"""Prints as many lines as its argument ``count`` says: "line 0", "line 1" and so on."""


async def lines(count=100_000):
    for number in range(count):
        print(f"line {number}")
    return count
