"""Ends with a ValueError, raised one call down, whose text is its argument ``text``."""


async def value_error(text="it went wrong"):
    refuse(text)


def refuse(text):
    raise ValueError(text)
