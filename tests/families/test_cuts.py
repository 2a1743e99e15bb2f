"""Whatever byte the line ends at while a connection is opened, that is told, and at once."""

from __future__ import annotations

import errno
import itertools
import os

import anyio
import pytest

from pie_anyio import ConnectFailed, ConnectionLost, Limits
from tests.anyio.test_authentication import key
from tests.families.in_memory import Network, Reply
from tests.families.listener import NOT_FOUND, say
from tests.families.world import SOON
from tests.proto.pair import CHALLENGE, OPEN, b64, wire
from tests.proto.websocket_wire import answer_101

pytestmark = pytest.mark.anyio

# No deadline of its own gets a client out of anything here.
PATIENT = Limits(
    handshake_timeout=9000.0,
    authentication_timeout=9000.0,
    close_timeout=9000.0,
    keepalive_interval=None,
)


def saying(*messages: bytes | str) -> Reply:
    return lambda _: say(*messages)


def yes(request_id: int, text: str) -> bytes:
    return wire("response", corr_id=request_id, ok=True, result=text)


DONE = '{"type":"turn_done"}'
PEERS: dict[str, list[list[Reply]]] = {
    "0.2": [[answer_101, saying(wire("response", corr_id=1, successful=True, result=OPEN))]],
    "0.3, which wants a proof": [
        [answer_101, saying(yes(2, b64(CHALLENGE)), DONE), saying(yes(3, "Authenticated"), DONE)]
    ],
    "0.5": [
        [lambda _: NOT_FOUND],
        [answer_101, saying(yes(1, "Already authenticated"), DONE)],
    ],
}


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("resets", [False, True], ids=["ends", "is reset"])
async def test_wherever_the_line_ends_it_is_a_connection_that_failed_or_is_lost(
    driver: str, name: str, *, resets: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[type[Exception]] = []
    words: list[str] = []
    for cut in itertools.count():
        network = Network(PEERS[name], cut=cut, resets=resets)
        with anyio.fail_after(SOON):
            try:
                async with network.client(driver, monkeypatch, limits=PATIENT) as client:
                    await client.authenticate("ada", key("ada") if "proof" in name else None)
            except (ConnectFailed, ConnectionLost) as error:
                told.append(type(error))
                words.append(str(error))
            else:
                break
            finally:
                assert all(connection.closed for connection in network.connections)
    why = os.strerror(errno.ECONNRESET) if resets else "without a word"
    assert all(why in text or "HTTP 404" in text for text in words)
    # First there is no connection, then there was one; each cut has been seen.
    opening = len(answer_101(b"Sec-WebSocket-Key: any"))
    before = len(NOT_FOUND) if name == "0.5" else 0
    assert told == sorted(told, key=[ConnectFailed, ConnectionLost].index)
    assert told.count(ConnectFailed) == before + opening
    assert told.count(ConnectionLost) > 40
