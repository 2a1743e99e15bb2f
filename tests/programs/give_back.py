"""Returns what it is given as ``value``: anything, or nothing."""


async def give_back(value=None):
    return value
