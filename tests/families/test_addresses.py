"""The addresses that a URI leads to: how each driver connects to them, and what it reports."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from pie_anyio import ConnectFailed
from tests.families.world import SOON, client_of

pytestmark = pytest.mark.anyio


async def failure(driver: str, uri: str, **options: Any) -> ConnectFailed:
    """Why there is no connection."""
    with anyio.fail_after(SOON), pytest.raises(ConnectFailed) as caught:
        async with client_of(driver, uri, **options):
            pytest.fail("it connected")
    assert uri in str(caught.value)
    return caught.value


# ----------------------------------------------------------------------------------------- zones


@pytest.mark.parametrize(
    "zone", ["Wi-Fi0", "vEthernet_LAB", "~tun", "eth0.100~a", "Wi%2DFi%20%281%29"]
)
async def test_an_interface_that_this_machine_lacks_is_a_failed_connection(
    driver: str, zone: str
) -> None:
    await failure(driver, f"ws://[fe80::7%25{zone}]:8080")


@pytest.mark.parametrize("zone", ["4242", "99999999999999999999"])
async def test_a_zone_that_no_interface_can_have_is_a_failed_connection(
    driver: str, zone: str
) -> None:
    await failure(driver, f"ws://[fe80::7%25{zone}]:8080")
