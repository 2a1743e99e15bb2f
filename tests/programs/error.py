"""Ends with an error of its own."""


async def error():
    raise RuntimeError("it went wrong")
