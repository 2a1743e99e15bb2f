"""How long opening a connection may take, on a clock that jumps."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from pie_anyio import ConnectFailed, Limits
from tests.families.in_memory import Network
from tests.families.listener import NOT_FOUND
from tests.proto.websocket_wire import answer_101


@pytest.mark.parametrize("driver", ["trio", "trio-adapter"])
@pytest.mark.parametrize(("seconds", "opens"), [(14.0, True), (16.0, False)])
def test_both_requests_together_have_the_time_of_one(
    driver: str, seconds: float, *, opens: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        network = Network([[lambda _: NOT_FOUND], [answer_101]], seconds=seconds)
        limits = Limits(handshake_timeout=30.0, keepalive_interval=None)
        client = network.client(driver, monkeypatch, limits=limits)
        if opens:
            async with client:
                assert trio.current_time() - started == pytest.approx(28.0)
        else:
            with pytest.raises(ConnectFailed, match="not answered for 30 s"):
                async with client:
                    pytest.fail("it connected")
            assert trio.current_time() - started == pytest.approx(30.0)
        assert [connection.closed for connection in network.connections] == [True, True]

    clock = trio.testing.MockClock(autojump_threshold=0)
    started = clock.current_time()
    trio.run(main, clock=clock)
