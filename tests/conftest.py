"""What all tests share: both event loops, and a bound for each asynchronous test."""

from __future__ import annotations

from functools import wraps
from inspect import iscoroutinefunction
from typing import Any, Final

import anyio
import pytest

_SECONDS: Final = 60
"""Less than the 120 s of pytest-timeout, which stops a test from outside of its event loop."""


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Every test marked ``anyio`` runs on both."""
    return str(request.param)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> None:
    """Bound the time of an asynchronous test in its own body.

    A fixture cannot do that. Its cancel scope would also be around what runs the tests: when the
    time is up, that ends instead of the test, nobody leaves the scope, and the garbage collector
    finds the fixture while another test runs.
    """
    body = pyfuncitem.obj
    if (
        "anyio_backend" not in pyfuncitem.funcargs
        or not iscoroutinefunction(body)
        or hasattr(body, "hypothesis")
        or any(pyfuncitem.iter_markers("slow"))
        or any(pyfuncitem.iter_markers("real"))
    ):
        return

    @wraps(body)
    async def bounded(**arguments: Any) -> None:
        with anyio.fail_after(_SECONDS):
            await body(**arguments)

    pyfuncitem.obj = bounded
