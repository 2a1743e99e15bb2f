"""What one instance says: what waits, what is kept, and when the program is held up."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from pie_anyio.server.output import OutputQueue
from pie_anyio.server.runner_limits import RunnerLimits
from pie_proto import Event

KEPT_BYTES = RunnerLimits().kept_bytes
PIECE = "x" * 65_536
SECONDS = 10


@pytest.fixture
def told() -> list[None]:
    return []


@pytest.fixture
def queue(told: list[None]) -> OutputQueue:
    return OutputQueue(lambda: told.append(None), KEPT_BYTES)


@contextmanager
def program(queue: OutputQueue, pieces: int) -> Iterator[None]:
    """A thread that puts so many pieces; what is done inside lets it come to its end."""

    def run() -> None:
        for _ in range(pieces):
            queue.put(Event.Stdout, PIECE)
        queue.finish(Event.Completed, "")

    thread = threading.Thread(target=run)
    thread.start()
    while not queue.blocked and thread.is_alive():
        pass
    yield
    thread.join(SECONDS)
    assert not thread.is_alive()


def taken(queue: OutputQueue) -> list[tuple[Event, str | bytes]]:
    events = []
    while batch := queue.take(1):
        events += batch
    return events


def test_events_are_taken_in_order_and_told_of_once(queue: OutputQueue, told: list[None]) -> None:
    queue.attach()
    queue.put(Event.Stdout, "a")
    queue.put(Event.Blob, b"b")
    queue.put(Event.Message, "c")
    queue.finish(Event.Completed, "d")
    assert len(told) == 1
    assert taken(queue) == [
        (Event.Stdout, "a"),
        (Event.Blob, b"b"),
        (Event.Message, "c"),
        (Event.Completed, "d"),
    ]
    assert not queue.waiting


def test_it_is_told_again_when_there_was_nothing(queue: OutputQueue, told: list[None]) -> None:
    queue.attach()
    for number in range(1, 4):
        queue.put(Event.Stdout, "a")
        assert len(told) == number
        assert queue.take(1000) == [(Event.Stdout, "a")]


def test_a_batch_is_bounded_and_never_empty(queue: OutputQueue) -> None:
    queue.attach()
    for _ in range(4):
        queue.put(Event.Stdout, "x" * 1000)
    assert len(queue.take(1)) == 1
    assert len(queue.take(2000)) == 2
    assert len(queue.take(1_000_000)) == 1


@pytest.mark.parametrize("release", [OutputQueue.detach, OutputQueue.close, taken])
def test_a_program_that_runs_ahead_waits_until_it_is_let_go(
    queue: OutputQueue, release: Callable[[OutputQueue], object]
) -> None:
    queue.attach()
    with program(queue, pieces=6):
        assert queue.blocked
        assert not queue.finished
        release(queue)
    assert queue.finished


def test_what_is_taken_and_what_is_kept_are_all_there_is(queue: OutputQueue) -> None:
    queue.attach()
    with program(queue, pieces=10):
        first = len(queue.take(1))
        queue.detach()
    queue.attach()
    *kept, end = taken(queue)
    assert first + len(kept) == 10
    assert end == (Event.Completed, "")


def test_the_last_mebibyte_of_each_stream_is_kept(queue: OutputQueue, told: list[None]) -> None:
    for _ in range(20):
        queue.put(Event.Stdout, PIECE)
    queue.put(Event.Stdout, "the end")
    queue.put(Event.Stderr, "a warning")
    queue.put(Event.Message, "lost")
    queue.put(Event.Blob, b"lost")
    queue.attach()
    events = taken(queue)
    printed = "".join(str(data) for event, data in events if event is Event.Stdout)
    assert len(printed) == KEPT_BYTES
    assert printed.endswith("xthe end")
    assert events[-1] == (Event.Stderr, "a warning")
    assert told == []


def test_what_was_kept_comes_once(queue: OutputQueue) -> None:
    queue.put(Event.Stdout, "a")
    queue.attach()
    assert taken(queue) == [(Event.Stdout, "a")]
    queue.detach()
    queue.attach()
    assert taken(queue) == []


def test_a_character_that_was_cut_through_is_left_out(queue: OutputQueue) -> None:
    queue.put(Event.Stdout, "ü" * (KEPT_BYTES // 2) + "!")
    queue.attach()
    text = "".join(str(data) for _, data in taken(queue))
    assert text == "ü" * (KEPT_BYTES // 2 - 1) + "!"


def test_after_close_only_the_end_is_taken(queue: OutputQueue) -> None:
    queue.attach()
    queue.put(Event.Stdout, "said")
    queue.close()
    queue.put(Event.Stdout, "unheard")
    queue.finish(Event.Aborted, "why")
    assert taken(queue) == [(Event.Stdout, "said"), (Event.Aborted, "why")]


def test_an_end_that_was_not_told_is_told_to_the_next(queue: OutputQueue) -> None:
    queue.attach()
    queue.finish(Event.Exception, "why")
    queue.detach()
    queue.attach()
    assert taken(queue) == [(Event.Exception, "why")]
