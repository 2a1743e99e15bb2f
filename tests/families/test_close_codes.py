"""With which code a server or a gateway closes, as the users of every driver are told."""

from __future__ import annotations

import anyio
import pytest

from pie_anyio import Closer, ConnectionLost
from tests.families.listener import listening, say, saying
from tests.families.world import SOON, client_of
from tests.proto.pair import OPEN, wire
from tests.proto.websocket_wire import frame

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("code", [1001, 1012, 1013, 1014, 3000, 4999])
async def test_the_code_and_reason_of_a_close_are_reported_after_the_answer_before_it(
    driver: str, code: int
) -> None:
    answer = say(wire("response", corr_id=1, successful=True, result=OPEN))
    close = frame(0x88, code.to_bytes(2, "big") + b"the server is down", masked=False)
    with anyio.fail_after(SOON):
        async with listening({"/": saying(answer + close, hangs_up=True)}) as listener:
            async with client_of(driver, listener.uri) as client:
                await client.authenticate("ada")
                with pytest.raises(ConnectionLost) as caught:
                    await client.ping()
    lost = caught.value
    assert (lost.by, lost.code, lost.reason) == (Closer.REMOTE, code, "the server is down")
