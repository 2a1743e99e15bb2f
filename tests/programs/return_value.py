"""Says nothing, and returns a value."""


async def return_value():
    return "forty-two"
