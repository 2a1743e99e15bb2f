"""Programs run, talk, end and are ended: the runner in plain threads, without server or wire."""

from __future__ import annotations

import faulthandler
import gc
import os
import queue
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest
import wasmtime.component

from pie_anyio.server import inferlet, wasi
from pie_anyio.server.host import Err, Host, HostFunction
from pie_anyio.server.inferlet import FUNCTIONS, Shared, Subscription
from pie_anyio.server.runner import (
    Execution,
    OutputClosed,
    Program,
    ProgramError,
    Runner,
)
from pie_anyio.server.runner_limits import RunnerLimits
from pie_anyio.server.values import ResourceTypes, UnknownType, lift_for
from pie_proto.events import Event
from tests.programs import component, text

BOUND = 10.0
"""Seconds that nothing here takes, unless it hangs."""

ABORTED = (Event.Aborted, "Signal termination")


class Started:
    """An execution in a thread of its own, and what it says."""

    def __init__(
        self,
        runner: Runner,
        program: Program,
        arguments: tuple[str, ...],
        output: Callable[[Event, str | bytes], None] | None,
    ) -> None:
        self.said: queue.Queue[tuple[Event, str | bytes]] = queue.Queue()
        self.execution = Execution(
            runner,
            program,
            instance_id="an-instance",
            arguments=arguments,
            output=output or (lambda event, data: self.said.put((event, data))),
        )
        self._ended: list[tuple[Event, str]] = []
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        self._ended.append(self.execution.run())

    def next(self) -> tuple[Event, str | bytes]:
        return self.said.get(timeout=BOUND)

    def outcome(self) -> tuple[Event, str]:
        self.thread.join(BOUND)
        assert not self.thread.is_alive(), "the program does not end"
        return self._ended[0]

    def rest(self) -> list[tuple[Event, str | bytes]]:
        """All that it has said and nobody has taken, once it has ended."""
        self.outcome()
        return [self.said.get_nowait() for _ in range(self.said.qsize())]

    def text(self, event: Event = Event.Stdout) -> str:
        return "".join(str(data) for kind, data in self.rest() if kind is event)


class Programs:
    """Starts programs by name, compiled once, and sees to it that they end."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self._compiled: dict[str, Program] = {}
        self._started: list[Started] = []

    def compile(self, name: str) -> Program:
        if name not in self._compiled:
            self._compiled[name] = self.runner.compile(component(name))
        return self._compiled[name]

    def start(
        self,
        name: str,
        *arguments: str,
        output: Callable[[Event, str | bytes], None] | None = None,
    ) -> Started:
        started = Started(self.runner, self.compile(name), arguments, output)
        self._started.append(started)
        return started

    def run(self, name: str, *arguments: str) -> tuple[Event, str]:
        return self.start(name, *arguments).outcome()

    def run_text(self, source: str) -> tuple[Event, str]:
        return Started(self.runner, self.runner.compile(source), (), None).outcome()

    def end(self) -> None:
        for started in self._started:
            started.execution.terminate()
        for started in self._started:
            started.outcome()
        self._started.clear()


@pytest.fixture(scope="module")
def shared_programs() -> Iterator[Programs]:
    runner = Runner(cache=False)
    yield Programs(runner)
    runner.close()


@pytest.fixture
def programs(shared_programs: Programs) -> Iterator[Programs]:
    yield shared_programs
    shared_programs.end()


@pytest.fixture
def host() -> Host:
    return Host(
        instance_id="x",
        arguments=[],
        output=lambda _event, _data: None,
        shared=Shared(store_bytes=100),
        held_bytes=1000,
        call_bytes=1000,
        interrupt=lambda _host: None,
    )


def limited(**limits: int) -> Programs:
    return Programs(Runner(cache=False, limits=RunnerLimits(**limits)))


def core_program(body: str, *, pages: int = 1, elements: int = 1, before: str = "") -> str:
    """A component without imports, whose ``run`` is ``body``."""
    return f"""(component {before}
      (core module $main
        (memory (export "memory") {pages}) (table {elements} funcref)
        (func (export "run") (result i32) {body}))
      (core instance $main (instantiate $main))
      (func $run (result (result (error string)))
        (canon lift (core func $main "run") (memory (core memory $main "memory"))))
      (instance $interface (export "run" (func $run)))
      (export "inferlet:core/run" (instance $interface)))"""


RETURN = "(i32.const 0)"


# ------------------------------------------------------------------------------- what programs say


def test_a_program_prints_and_returns_a_value(programs: Programs) -> None:
    started = programs.start("hello")
    assert started.rest() == [
        (Event.Stdout, "hello from pie\n"),
        (Event.Stderr, "a warning\n"),
    ]
    assert started.outcome() == (Event.Completed, "done")


def test_a_program_that_returns_nothing_completes_with_an_empty_text(programs: Programs) -> None:
    started = programs.start("stdout_only")
    assert started.text() == "one\ntwo\nthree\n"
    assert started.outcome() == (Event.Completed, "")


def test_a_program_can_return_a_value_and_say_nothing(programs: Programs) -> None:
    started = programs.start("return_value")
    assert started.rest() == []
    assert started.outcome() == (Event.Completed, "forty-two")


@pytest.mark.parametrize("arguments", [(), ("one",), ("--prompt", "", "Grüße, 世界", "a\nb")])
def test_a_program_gets_its_arguments(programs: Programs, arguments: tuple[str, ...]) -> None:
    started = programs.start("arguments", *arguments)
    assert started.text() == "".join(f"{argument}\n" for argument in arguments)
    assert started.outcome() == (Event.Completed, arguments[0] if arguments else "")


@pytest.mark.parametrize("argument", ["a\0b", "\ud800"])
def test_an_argument_that_would_not_arrive_whole_is_refused(
    programs: Programs, argument: str
) -> None:
    with pytest.raises(ValueError, match=r"NUL|surrogates"):
        Execution(
            programs.runner,
            programs.compile("hello"),
            instance_id="x",
            arguments=["fine", argument],
            output=lambda _event, _data: None,
        )


def test_a_character_cut_by_writes_stays_whole(programs: Programs) -> None:
    started = programs.start("unicode")
    said = [data for _, data in started.rest()]
    # The last is half a character that nothing followed.
    assert said == ["f", "ü", "r", " ", "€", "5", "\n", "\N{REPLACEMENT CHARACTER}"]
    assert started.outcome() == (Event.Completed, "")


def test_much_output_comes_complete_and_in_order(programs: Programs) -> None:
    started = programs.start("flood", "40")
    pieces = [str(data) for _, data in started.rest()]
    assert [int(piece[:16]) for piece in pieces] == list(range(40))
    assert {piece[16:] for piece in pieces} == {"." * (65536 - 17) + "\n"}
    assert started.outcome() == (Event.Completed, "flooded")


# ---------------------------------------------------------------------------------- conversations


def test_messages_go_in_and_come_out(programs: Programs) -> None:
    started = programs.start("echo")
    for message in ["hello", "", "Grüße\0!", "x" * 100_000]:
        started.execution.send_message(message)
        assert started.next() == (Event.Message, f"echo: {message}")
    started.execution.send_message("stop")
    assert started.outcome() == (Event.Completed, "stopped")


def test_messages_wait_for_the_program_in_order(programs: Programs) -> None:
    execution = Execution(
        programs.runner,
        programs.compile("echo"),
        instance_id="x",
        arguments=[],
        output=lambda _event, data: said.append(data),
    )
    said: list[str | bytes] = []
    for message in ["1", "2", "3", "stop", "never received"]:
        execution.send_message(message)
    assert execution.run() == (Event.Completed, "stopped")
    assert said == ["echo: 1", "echo: 2", "echo: 3"]
    execution.send_message("too late")
    execution.send_blob(b"too late")
    execution.terminate()


def test_a_message_that_is_no_unicode_is_refused(programs: Programs) -> None:
    started = programs.start("echo")
    with pytest.raises(ValueError, match="surrogates"):
        started.execution.send_message("\ud800")
    started.execution.send_message("still there")
    assert started.next() == (Event.Message, "echo: still there")


def test_blobs_go_in_and_come_out(programs: Programs) -> None:
    started = programs.start("echo_blob")
    # The last takes some 0.3 s; byte by byte it would take 4.
    for size in [1, 255, 65_537, 1 << 20]:
        blob = os.urandom(size)
        started.execution.send_blob(blob)
        assert started.next() == (Event.Blob, blob)
    started.execution.send_blob(b"")
    assert started.outcome() == (Event.Completed, "an empty blob came")


def test_a_conversation_of_everything(programs: Programs) -> None:
    started = programs.start("conversation", "one", "two")
    started.execution.send_blob(b"\x00\xff bytes")
    started.execution.send_message("well?")
    assert started.outcome() == (Event.Completed, "goodbye")
    said = started.rest()
    assert "".join(str(data) for event, data in said if event is Event.Stdout) == (
        "hello from pie\nargument: one\nargument: two\ntick 1\ntick 2\ntick 3\n"
    )
    assert [item for item in said if item[0] is not Event.Stdout] == [
        (Event.Stderr, "this goes to stderr\n"),
        (Event.Message, "ready"),
        (Event.Message, "you said: well?"),
        (Event.Blob, b"\x00\xff bytes"),
    ]


# ------------------------------------------------------------------------------------------- ends


def test_an_error_of_the_program_is_an_exception_with_its_text(programs: Programs) -> None:
    assert programs.run("error") == (Event.Exception, "it went wrong")


def test_a_trap_is_an_exception_that_comes_after_the_output(programs: Programs) -> None:
    assert faulthandler.is_enabled(), "with it, a trap by signal would kill the process"
    started = programs.start("trap")
    assert started.rest() == [(Event.Stdout, "about to trap\n")]
    assert started.outcome() == (
        Event.Exception,
        "wasm trap: wasm `unreachable` instruction executed",
    )


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("(i32.div_u (i32.const 1) (i32.const 0))", "wasm trap: integer divide by zero"),
        ("(call 0)", "wasm trap: call stack exhausted"),
        ("(i32.const -1)", "return pointer not aligned"),
    ],
)
def test_other_traps_name_their_reason(programs: Programs, body: str, reason: str) -> None:
    assert programs.run_text(core_program(body)) == (Event.Exception, reason)


def test_faulthandler_and_traps_get_on_in_any_order() -> None:
    script = (
        "import faulthandler\n"
        "from pie_anyio.server.runner import Execution, Runner\n"
        "from tests.programs import component\n"
        "runner = Runner(cache=False)\n"
        "faulthandler.enable()\n"
        "execution = Execution(runner, runner.compile(component('trap')), instance_id='x',\n"
        "                      arguments=[], output=lambda *_: None)\n"
        "print(execution.run()[0].name)\n"
    )
    assert run_python(script) == "Exception"


@pytest.mark.parametrize("name", ["loop", "sleep"])
def test_terminating_ends_a_busy_program(programs: Programs, name: str) -> None:
    started = programs.start(name)
    started.next()
    started.execution.terminate()
    assert started.outcome() == ABORTED


def test_terminating_ends_a_program_that_waits_for_a_message(programs: Programs) -> None:
    started = programs.start("echo")
    started.execution.send_message("are you there?")
    started.next()
    started.execution.terminate("enough")
    assert started.outcome() == (Event.Aborted, "enough")


def test_terminating_before_the_run_keeps_the_program_from_beginning(programs: Programs) -> None:
    said: list[object] = []
    execution = Execution(
        programs.runner,
        programs.compile("hello"),
        instance_id="x",
        arguments=[],
        output=lambda _event, data: said.append(data),
    )
    execution.terminate()
    assert execution.run() == ABORTED
    assert said == []


def test_the_first_termination_counts(programs: Programs) -> None:
    started = programs.start("loop")
    started.next()
    started.execution.terminate("first")
    started.execution.terminate("second")
    assert started.outcome() == (Event.Aborted, "first")


def test_terminating_what_has_ended_does_nothing(programs: Programs) -> None:
    started = programs.start("hello")
    assert started.outcome() == (Event.Completed, "done")
    started.execution.terminate()
    assert started.outcome() == (Event.Completed, "done")


def test_terminating_one_leaves_the_others_alone(programs: Programs) -> None:
    loops = [programs.start("loop") for _ in range(3)]
    echo = programs.start("echo")
    for loop in loops:
        loop.next()
    loops[0].execution.terminate()
    assert loops[0].outcome() == ABORTED
    echo.execution.send_message("still there?")
    assert echo.next() == (Event.Message, "echo: still there?")
    assert all(loop.thread.is_alive() for loop in loops[1:])


def test_an_output_that_blocks_stops_its_program_until_it_is_released(programs: Programs) -> None:
    entered, release = threading.Event(), threading.Event()

    def output(_event: Event, _data: str | bytes) -> None:
        said.append(_data)
        entered.set()
        assert release.wait(BOUND)

    said: list[object] = []
    started = programs.start("hello", output=output)
    assert entered.wait(BOUND)
    started.execution.terminate()
    assert started.thread.is_alive()
    release.set()
    assert started.outcome() == ABORTED
    assert said == ["hello from pie\n"]


@pytest.mark.parametrize(
    ("raised", "outcome"),
    [
        (OutputClosed("nobody listens"), (Event.Aborted, "nobody listens")),
        (OutputClosed(), (Event.Aborted, "Output closed")),
        (RuntimeError("oops"), (Event.ServerError, "output failed: RuntimeError: oops")),
    ],
)
def test_an_output_that_raises_ends_its_program(
    programs: Programs, raised: Exception, outcome: tuple[Event, str]
) -> None:
    def output(_event: Event, _data: str | bytes) -> None:
        raise raised

    assert programs.start("flood", "1000", output=output).outcome() == outcome


def test_an_output_that_closes_on_the_last_half_character_counts(programs: Programs) -> None:
    def output(_event: Event, data: str | bytes) -> None:
        if data == "\N{REPLACEMENT CHARACTER}":
            raise OutputClosed

    assert programs.start("unicode", output=output).outcome() == (Event.Aborted, "Output closed")


def test_ctrl_c_goes_on_once_the_program_is_left(programs: Programs) -> None:
    def output(_event: Event, _data: str | bytes) -> None:
        raise KeyboardInterrupt

    execution = Execution(
        programs.runner,
        programs.compile("hello"),
        instance_id="x",
        arguments=[],
        output=output,
    )
    with pytest.raises(KeyboardInterrupt):
        execution.run()
    assert programs.run("hello") == (Event.Completed, "done")


def test_an_execution_runs_once(programs: Programs) -> None:
    started = programs.start("hello")
    assert started.outcome() == (Event.Completed, "done")
    assert started.execution.run() == (Event.ServerError, "an execution runs only once")


# ------------------------------------------------------------------------------------ many at once


def test_fifty_at_once_do_not_disturb_each_other(programs: Programs) -> None:
    started = [programs.start("echo", str(i)) for i in range(50)]
    for i, one in enumerate(started):
        one.execution.send_message(f"number {i}")
        one.execution.send_message("stop")
    for i, one in enumerate(started):
        assert one.outcome() == (Event.Completed, "stopped")
        assert one.rest() == [(Event.Message, f"echo: number {i}")]


def test_outcomes_do_not_get_mixed_up_under_load(programs: Programs) -> None:
    kinds = {
        "trap": (Event.Exception, "wasm trap: wasm `unreachable` instruction executed"),
        "error": (Event.Exception, "it went wrong"),
        "model": (Event.Exception, "there is no model"),
        "hello": (Event.Completed, "done"),
    }
    started = [(kind, programs.start(kind)) for _ in range(15) for kind in kinds]
    for kind, one in started:
        assert one.outcome() == kinds[kind]


def test_fifty_loops_end_when_all_are_terminated_at_the_same_time(programs: Programs) -> None:
    started = [programs.start("loop") for _ in range(50)]
    for one in started:
        one.next()
    barrier = threading.Barrier(5)

    def terminate(some: list[Started]) -> None:
        barrier.wait(BOUND)
        for one in some:
            one.execution.terminate()

    threads = [threading.Thread(target=terminate, args=(started[i::5],)) for i in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(BOUND)
    assert {one.outcome() for one in started} == {ABORTED}


def test_nothing_is_left_behind() -> None:
    before = set(threading.enumerate())
    programs = limited()
    loops = [programs.start("loop") for _ in range(5)]
    for loop in loops:
        loop.next()
        loop.execution.terminate()
        loop.outcome()
    assert programs.start("hello").outcome() == (Event.Completed, "done")
    ticker = programs.runner.interrupter.ticker
    if ticker is not None:
        ticker.join(BOUND)
    assert set(threading.enumerate()) <= before
    gone = [weakref.ref(item) for item in (programs.runner, programs.compile("loop"), loops[0])]
    del programs, loops, loop
    gc.collect()
    assert [item() for item in gone] == [None, None, None]


# --------------------------------------------------------------------------------------- closing


def test_closing_ends_what_runs_and_starts_nothing_more() -> None:
    programs = limited()
    loop, echo = programs.start("loop"), programs.start("echo")
    loop.next()
    programs.compile("hello")
    programs.runner.close()
    assert loop.outcome() == (Event.Aborted, "Server closed")
    assert echo.outcome() == (Event.Aborted, "Server closed")
    assert programs.run("hello") == (Event.Aborted, "Server closed")
    with pytest.raises(ProgramError, match="closing"):
        programs.compile("trap")


# ------------------------------------------------------------------------------------- compiling


def test_a_program_can_come_as_text(programs: Programs) -> None:
    for source in (text("hello"), text("hello").encode()):
        assert programs.runner.compile(source).imports == (
            "wasi:io/error@0.2.0",
            "wasi:io/streams@0.2.0",
            "wasi:cli/stdout@0.2.0",
            "wasi:cli/stderr@0.2.0",
            "inferlet:core/runtime",
        )


def test_a_program_is_a_handle(programs: Programs) -> None:
    program = programs.compile("hello")
    assert len({program, program, programs.compile("trap")}) == 2
    assert repr(program) == "<Program, 5 imports>"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (b"", "not a WebAssembly component: it begins with b''"),
        (b"\x7fELF\x02\x01\x01\x00", "it begins with"),
        ("(component", "not a WebAssembly component: expected `\\)`"),
        ("(module)", "not a WebAssembly component: attempted to parse a wasm module"),
        (b"\0asm\1\0\0\0", "a core WebAssembly module.*wasm32-wasip2"),
        (component("hello")[:500], "not a WebAssembly component: .*unexpected end"),
        ("(component)", "it does not export 'inferlet:core/run'"),
        (
            '(component (instance $i) (export "inferlet:core/run" (instance $i)))',
            "has no `run: func\\(\\) -> result<_, string>`",
        ),
        (
            core_program(
                RETURN, before='(import "other:thing/api" (instance (export "f" (func))))'
            ),
            "it imports 'other:thing/api#f', which nobody provides",
        ),
        (core_program(RETURN, before='(import "f" (func))'), "it imports 'f', which nobody"),
        (
            core_program(RETURN, before='(import "wasi:io/poll@0.3.0" (instance))'),
            "'wasi:io/poll@0.3.0'; only WASI 0.2",
        ),
        (
            core_program(RETURN).replace('"run" (func $run)', '"walk" (func $run)'),
            "has no `run: func\\(\\) -> result<_, string>`",
        ),
        (
            core_program(RETURN).replace("(error string)", ""),
            "has no `run: func\\(\\) -> result<_, string>`",
        ),
        (
            core_program(RETURN)
            .replace('"run") (result', '"run") (param i32) (result')
            .replace("$run (result", '$run (param "x" s32) (result'),
            "has no `run: func\\(\\) -> result<_, string>`",
        ),
    ],
)
def test_what_cannot_run_is_refused_in_words(
    programs: Programs, source: bytes | str, words: str
) -> None:
    with pytest.raises(ProgramError, match=words):
        programs.runner.compile(source)


def test_a_newer_version_of_the_export_will_do(programs: Programs) -> None:
    source = core_program(RETURN).replace(
        '(export "inferlet:core/run" (instance',
        '(export "other:thing/api" (instance $interface))'
        ' (export "inferlet:core/run@0.2.7" (instance',
    )
    assert programs.run_text(source) == (Event.Completed, "")


# ---------------------------------------------------------------------------------------- limits


@pytest.mark.parametrize(
    ("limit", "value", "source"),
    [
        ("memory_bytes", 65536, core_program(RETURN, pages=2)),
        ("table_elements", 10, core_program(RETURN, elements=11)),
        ("memories", 0, core_program(RETURN)),
        ("tables", 0, core_program(RETURN)),
        ("instances", 0, core_program(RETURN)),
    ],
)
def test_a_program_that_is_too_big_to_begin_is_told_which_limit(
    limit: str, value: int, source: str
) -> None:
    event, reason = limited(**{limit: value}).run_text(source)
    assert event is Event.ServerError
    assert reason.endswith(f"(limit {limit})")


def test_memory_that_a_running_program_asks_for_is_refused_to_it() -> None:
    grow = "(if (i32.eq (memory.grow (i32.const 1)) (i32.const -1)) (then (unreachable)))"
    source = core_program(grow + RETURN)
    assert limited(memory_bytes=131072).run_text(source) == (Event.Completed, "")
    assert limited(memory_bytes=65536).run_text(source)[0] is Event.Exception


@pytest.mark.parametrize("call_bytes", [1000, 1 << 30])
def test_a_blob_from_the_program_has_a_limit(call_bytes: int) -> None:
    """Ours by default; wasmtime's own, which is higher, when ours is lifted."""
    started = limited(call_bytes=call_bytes).start("echo_blob")
    started.execution.send_blob(bytes(1001 if call_bytes == 1000 else 3_000_000))
    event, reason = started.outcome()
    assert event is Event.Exception
    assert reason.endswith("(limit call_bytes)")


@pytest.mark.parametrize("name", ["loop", "sleep"])
def test_a_program_that_does_not_receive_is_ended_when_it_holds_too_much(name: str) -> None:
    started = limited(held_bytes=10_000).start(name)
    started.next()
    for _ in range(3):
        started.execution.send_blob(bytes(4000))
    event, reason = started.outcome()
    assert event is Event.ServerError
    assert "(limit held_bytes)" in reason


def test_what_a_program_receives_it_holds_no_more() -> None:
    started = limited(held_bytes=10_000).start("echo_blob")
    for _ in range(20):
        started.execution.send_blob(bytes(4000))
        assert started.next() == (Event.Blob, bytes(4000))
    started.execution.send_blob(b"")
    assert started.outcome()[0] is Event.Completed


def test_the_store_has_a_limit() -> None:
    programs = limited(store_bytes=10)
    assert programs.run("store", "short") == (Event.Completed, "")
    event, reason = programs.run("store", "too long")
    assert event is Event.ServerError
    assert "(limit store_bytes)" in reason


# ------------------------------------------------------------------------- what a program can call


def test_the_store_is_shared_and_forgets_what_is_deleted(programs: Programs) -> None:
    for key in ("colour", "Farbe"):
        started = programs.start("store", key)
        assert started.outcome() == (Event.Completed, "")
        assert started.rest() == [(Event.Message, "blue"), (Event.Message, key)]


def test_a_broadcast_reaches_those_who_subscribed(programs: Programs) -> None:
    listeners = [programs.start("topics") for _ in range(3)]
    for listener in listeners:
        assert listener.next() == (Event.Message, "listening")
    assert programs.run("topics", "it rains") == (Event.Completed, "")
    for listener in listeners:
        assert listener.next() == (Event.Message, "it rains")
        assert listener.outcome() == (Event.Completed, "")
    assert programs.run("topics", "nobody hears") == (Event.Completed, "")


def test_a_subscriber_that_was_ended_is_forgotten(programs: Programs) -> None:
    listener = programs.start("topics")
    listener.next()
    listener.execution.terminate()
    assert listener.outcome() == ABORTED
    assert programs.runner.shared.topics() == []


def test_a_program_learns_where_it_runs_and_loses_no_message(programs: Programs) -> None:
    started = programs.start("runtime")
    assert [started.next()[1] for _ in range(3)] == [
        "0.2.0",
        "an-instance",
        "the embedded server has no answer to 'how are you'",
    ]
    started.execution.send_message("the first")
    assert started.next() == (Event.Message, "the first")
    assert started.outcome() == (Event.Completed, "")


def test_a_message_for_a_place_given_up_goes_to_the_next(host: Host) -> None:
    host.messages.put("first", 5)
    first, second, third = (host.messages.receive() for _ in range(3))
    assert first.pollable().ready(0)
    assert not second.pollable().ready(0)
    first.close()
    assert second.get() == "first"
    third.close()
    host.messages.put("second", 6)
    assert host.messages.receive().get() == "second"
    second.close()


def test_nothing_is_put_into_an_instance_that_is_over(host: Host) -> None:
    assert host.end(Event.Completed, "")
    host.messages.put("too late", 8)
    receipt = host.messages.receive()
    assert receipt.get() is None


def test_a_subscription_dropped_takes_its_messages_along(host: Host) -> None:
    shared = host.shared
    assert isinstance(shared, Shared)
    subscription = FUNCTIONS["inferlet:core/message#subscribe"](host, "news")
    assert isinstance(subscription, Subscription)
    for message in ("a", "b"):
        shared.broadcast("news", message)
    subscription.close()
    assert shared.topics() == []
    shared.join(subscription)
    host.end(Event.Completed, "")
    shared.broadcast("news", "too late")
    assert FUNCTIONS["inferlet:core/message#[method]subscription.get"](host, subscription) is None


def test_a_program_that_wants_a_model_ends_with_its_own_error(programs: Programs) -> None:
    assert programs.run("model") == (Event.Exception, "there is no model")


def test_calling_what_needs_a_model_says_so(programs: Programs) -> None:
    assert programs.run("model", "go on") == (
        Event.Exception,
        "inferlet:core/tokenize#tokenize: it needs a model, and the embedded server has none",
    )


@pytest.mark.parametrize(
    ("end", "outcome"),
    [
        ("0", (Event.Completed, "")),
        ("1", (Event.Exception, "exited with status 1")),
        ("2", (Event.Exception, "wasi:filesystem/types#lock-everything: the embedded server has")),
        ("3", (Event.Exception, "wasi:io/streams#[method]output-stream.blocking-write-and-flush:")),
        ("4", (Event.Exception, "wasi:io/poll#poll: there is nothing to wait for")),
        ("5", (Event.Exception, "exited with status 7")),
        ("6", (Event.Exception, "wasi:io/streams#[method]output-stream.write: 65537 bytes")),
        ("7", (Event.Exception, "wasi:io/streams#[method]output-stream.write-zeroes: 1844674")),
        ("8", (Event.Exception, "wasi:random/random#get-random-bytes: 18446744073709551615 b")),
    ],
)
def test_wasi_answers_as_it_should(
    programs: Programs, end: str, outcome: tuple[Event, str]
) -> None:
    started = programs.start("wasi", end)
    event, reason = started.outcome()
    assert (event, reason[: len(outcome[1])]) == outcome
    assert started.text() == "well\n\0\0"


def test_what_toolchains_link_in_answers_as_it_should(programs: Programs) -> None:
    started = programs.start("toolchain")
    assert started.outcome() == (Event.Completed, "")
    assert started.text(Event.Stderr) == "\0" * 4096
    event, reason = programs.run("toolchain", "too many")
    assert event is Event.Exception
    assert reason == (
        "wasi:io/streams#[method]output-stream.blocking-write-zeroes-and-flush: "
        "4097 bytes at once, where 4096 are allowed"
    )


def test_there_is_no_function_that_no_program_here_calls() -> None:
    called: set[str] = set()

    def noted(name: str, function: HostFunction) -> HostFunction:
        def call(*arguments: object) -> object:
            called.add(name)
            return function(*arguments)

        return call

    table = {**wasi.FUNCTIONS, **inferlet.FUNCTIONS}
    functions = {name: noted(name, function) for name, function in table.items()}
    programs = Programs(Runner(cache=False, functions=functions))
    listener = programs.start("topics")
    listener.next()
    runs = {
        "wasi": ("0", "5"),
        **dict.fromkeys(("toolchain", "model", "hello"), ("",)),
        **dict.fromkeys(("runtime", "conversation", "echo_blob", "store", "topics"), ("x",)),
    }
    for name, all_arguments in runs.items():
        for argument in all_arguments:
            started = programs.start(name, *filter(None, [argument]))
            started.execution.send_message("a message")
            for blob in (b"a blob", b""):
                started.execution.send_blob(blob)
            assert started.outcome()[0] in {Event.Completed, Event.Exception}
    assert listener.outcome()[0] is Event.Completed
    assert set(table) - called == set()


ALL_KINDS = (
    *(True, -1, 255, -2, 65535, -3, 4_000_000_000, -4, 2**63, 0.5, -1e300),
    *("€", "Grüße", [1, 2, 3], b"bytes", (1, "x"), {"a": 1, "b": "y"}, {"red", "blue"}),
    *(7, None, "fine", Err(9), ("some", 5), ("none", None), "green", b"", []),
)


def test_every_kind_of_value_survives_the_way_there_and_back() -> None:
    source = """(component
      (import "test:values/all" (instance $all
        (type $record-fields (record (field "a" u8) (field "b" string)))
        (export "record" (type $record (eq $record-fields)))
        (type $colours (flags "red" "green" "blue"))
        (export "flags" (type $flags (eq $colours)))
        (type $cases (variant (case "some" u32) (case "none")))
        (export "variant" (type $variant (eq $cases)))
        (type $names (enum "red" "green"))
        (export "enum" (type $enum (eq $names)))
        (type $everything (tuple bool s8 u8 s16 u16 s32 u32 s64 u64 f32 f64 char string (list u16)
          (list u8) (tuple u8 string) $record $flags (option u8) (option u8)
          (result string (error u8)) (result string (error u8)) $variant $variant $enum
          (list u8) (list string)))
        (export "give" (func (result $everything)))
        (export "take" (func (param "everything" $everything)))))
      (core module $memory
        (memory (export "memory") 1)
        (global $next (mut i32) (i32.const 4096))
        (func (export "realloc") (param i32 i32 i32 i32) (result i32)
          (global.set $next (i32.add (global.get $next) (i32.const 1024)))
          (global.get $next)))
      (core instance $memory (instantiate $memory))
      (core func $give (canon lower (func $all "give")
        (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))))
      (core func $take (canon lower (func $all "take") (memory (core memory $memory "memory"))))
      (core module $main
        (import "host" "give" (func $give (param i32)))
        (import "host" "take" (func $take (param i32)))
        (func (export "run") (result i32)
          (call $give (i32.const 1024))
          (call $take (i32.const 1024))
          (i32.const 0)))
      (core instance $main (instantiate $main
        (with "host" (instance (export "give" (func $give)) (export "take" (func $take))))))
      (func $run (result (result (error string)))
        (canon lift (core func $main "run") (memory (core memory $memory "memory"))))
      (instance $interface (export "run" (func $run)))
      (export "inferlet:core/run" (instance $interface)))"""
    taken: list[object] = []
    functions = {
        "test:values/all#give": lambda _host: ALL_KINDS,
        "test:values/all#take": lambda _host, everything: taken.append(everything),
    }
    runner = Runner(cache=False, functions=functions)
    started = Started(runner, runner.compile(source), (), None)
    assert started.outcome() == (Event.Completed, "")
    assert taken == [ALL_KINDS]


def test_a_type_that_no_value_has_is_named() -> None:
    with pytest.raises(UnknownType, match="ErrorContext"):
        lift_for(wasmtime.component.ErrorContext())
    with pytest.raises(UnknownType, match="ErrorContext"):
        ResourceTypes().lower_for(wasmtime.component.ErrorContext())


EXISTS = """(import "inferlet:core/kvs" (instance $kvs
    (export "store-exists" (func (result string)))))
  (core module $memory (memory (export "memory") 1)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 64)))
  (core instance $memory (instantiate $memory))
  (core func $exists (canon lower (func $kvs "store-exists")
    (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))))"""


def test_a_fault_of_a_host_function_ends_the_program_that_called_it(programs: Programs) -> None:
    """Here it is called with another signature than it has."""
    source = (
        core_program("(call $exists (i32.const 16)) " + RETURN, before=EXISTS)
        .replace(
            "(core module $main", '(core module $main (import "h" "f" (func $exists (param i32)))'
        )
        .replace("$main))", '$main (with "h" (instance (export "f" (func $exists))))))', 1)
    )
    event, reason = programs.run_text(source)
    assert event is Event.ServerError
    assert reason.startswith("inferlet:core/kvs#store-exists failed: TypeError: ")


def test_a_fault_of_the_runner_is_told_and_not_raised() -> None:
    programs = limited(memory_bytes=cast("int", "much"))
    event, reason = programs.run_text(core_program(RETURN))
    assert event is Event.ServerError
    assert reason.startswith("ArgumentError: ")


# ------------------------------------------------------------------ where it is imported and cached


def run_python(script: str, **environment: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **environment},
        check=True,
        capture_output=True,
        text=True,
        timeout=BOUND,
    ).stdout.strip()


def test_importing_the_client_does_not_load_wasmtime() -> None:
    script = "import pie_anyio, pie_anyio.server, sys; print('wasmtime' in sys.modules)"
    assert run_python(script) == "False"


def test_compiled_code_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    Runner(cache=True).compile(component("hello"))
    assert any(path.is_file() for path in (tmp_path / "cache").rglob("*"))


def test_there_need_be_no_place_for_a_cache() -> None:
    script = (
        "from pie_anyio.server.runner import Runner\n"
        "from tests.programs import component\n"
        "print(Runner(cache=True).compile(component('hello')))\n"
    )
    nowhere = "/proc/nowhere"
    out = run_python(script, HOME=nowhere, XDG_CACHE_HOME=nowhere, XDG_CONFIG_HOME=nowhere)
    assert out == "<Program, 5 imports>"
