"""Calls in threads can be abandoned, and what they use is closed by whoever uses it last."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import pytest

from pie_files.threads import Call, Closing, Threads

SOON = 30
"""How long anything that must happen may take, in seconds."""


class Waiter:
    """Starts calls, and waits for them as an event loop would."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads

    def start(self, work: Callable[[], Any]) -> tuple[Call[Any], threading.Event]:
        done = threading.Event()
        return self._threads.start(work, done.set), done

    def call(self, work: Callable[[], Any]) -> Any:
        call, done = self.start(work)
        assert done.wait(SOON)
        return call.result()


@contextmanager
def blocked(waiter: Waiter, count: int) -> Iterator[tuple[list[Call[Any]], threading.Event]]:
    """Calls that have begun, and do not return until they are released."""
    release = threading.Event()
    begun = threading.Semaphore(0)

    def block() -> bool:
        begun.release()
        return release.wait(SOON)

    calls = [waiter.start(block)[0] for _ in range(count)]
    try:
        for _ in calls:
            assert begun.acquire(timeout=SOON)
        yield calls, release
    finally:
        release.set()


def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    end = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < end
        os.sched_yield()


def test_a_call_gives_what_it_returns_and_raises_what_it_raises() -> None:
    waiter = Waiter(Threads())
    assert waiter.call(lambda: 5) == 5
    with pytest.raises(ZeroDivisionError):
        waiter.call(lambda: 1 // 0)
    with pytest.raises(SystemExit):
        waiter.call(lambda: exec("raise SystemExit"))


def test_threads_are_daemons_and_used_again() -> None:
    waiter = Waiter(Threads())
    used = set()
    for _ in range(50):
        used.add(waiter.call(threading.current_thread))
    assert all(thread.daemon for thread in used)
    assert len(used) < 10


def test_a_call_has_an_empty_context() -> None:
    name: ContextVar[str] = ContextVar("name", default="none")
    name.set("the caller's")
    assert Waiter(Threads()).call(name.get) == "none"


def test_calls_that_are_abandoned_take_no_place() -> None:
    waiter = Waiter(Threads(at_once=2))
    for _ in range(5):
        with blocked(waiter, 2) as (calls, _):
            waiting, done = waiter.start(lambda: "next")
            assert not done.is_set()
            calls[0].abandon()
            calls[0].abandon()
            assert done.wait(SOON)
            assert waiting.result() == "next"


def test_an_abandoned_call_tells_nobody_that_it_is_done() -> None:
    threads = Threads()
    told: list[str] = []
    finished = threading.Event()
    release = threading.Event()
    begun = threading.Event()

    def work() -> None:
        begun.set()
        release.wait(SOON)
        finished.set()

    call = threads.start(work, lambda: told.append("done"))
    assert begun.wait(SOON)
    call.abandon()
    release.set()
    assert finished.wait(SOON)
    Waiter(threads).call(int)
    assert told == []


def test_a_call_that_is_abandoned_before_it_began_never_begins() -> None:
    waiter = Waiter(Threads(at_once=1))
    begun: list[int] = []
    with blocked(waiter, 1):
        call, _ = waiter.start(lambda: begun.append(1))
        call.abandon()
    waiter.call(int)
    assert begun == []


def test_there_are_never_more_threads_than_the_bound() -> None:
    waiter = Waiter(Threads(at_once=3, most=5))
    with blocked(waiter, 3) as (first, _), blocked(Waiter(Threads()), 1):
        for call in first:
            call.abandon()
        with blocked(waiter, 2) as (second, _):
            for call in second:
                call.abandon()
            waiting, done = waiter.start(threading.current_thread)
            assert not done.is_set()
        assert done.wait(SOON)
        assert waiting.result().daemon


def test_an_event_loop_that_has_ended_is_no_longer_woken() -> None:
    threads = Threads(at_once=1)

    def ended() -> None:
        raise RuntimeError("the event loop is closed")

    threads.start(int, ended)
    assert Waiter(threads).call(lambda: 5) == 5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_the_child_of_a_fork_has_threads_of_its_own() -> None:
    from pie_files import threads

    def call() -> None:
        done = threading.Event()
        assert threads.start(int, done.set)
        assert done.wait(SOON)

    call()
    child = os.fork()
    if not child:
        try:
            call()
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_what_is_in_use_is_closed_by_the_thread_that_uses_it() -> None:
    closed_in: list[threading.Thread] = []
    closing = Closing(lambda: closed_in.append(threading.current_thread()))
    waiter = Waiter(Threads())
    used, release = threading.Event(), threading.Event()

    def use() -> threading.Thread:
        with closing:
            used.set()
            assert release.wait(SOON)
            assert closing.closed
            assert closed_in == []
        return threading.current_thread()

    call, done = waiter.start(use)
    assert used.wait(SOON)
    closing.close()
    assert closed_in == []
    release.set()
    assert done.wait(SOON)
    assert closed_in == [call.result()]


def test_what_is_not_in_use_is_closed_at_once() -> None:
    closed: list[str] = []
    closing = Closing(lambda: closed.append("now"))
    with closing:
        assert not closing.closed
    assert closed == []
    closing.close()
    assert closed == ["now"]
