"""Detached launches where the server does not say which instance it made.

The instance is what is new in the list of instances, and fits. So such launches go one at a time:
a list, the launch, a list again. Instances that are launched attached meanwhile are told from it
by their ids, which their own answers give.

What is legal when stands in `states`. The session says what happens; lists are asked for here, in
requests that nobody else awaits.
"""

from __future__ import annotations

from collections import deque
from typing import TypeAlias

from pie_proto import commands as c
from pie_proto import events as e
from pie_proto.dialects.abilities import ABILITIES
from pie_proto.errors import RemoteProtocolError
from pie_proto.lanes import Outbox, lane_of
from pie_proto.messages import Answer
from pie_proto.requests import Requests
from pie_proto.states import DETACHED_LAUNCH, DetachedLaunchInput, DetachedLaunchState

__all__ = ["DetachedLaunches", "Launching", "unfound"]

Launching: TypeAlias = c.LaunchInstance | c.LaunchFromRegistry

_State = DetachedLaunchState
_SENT = frozenset({_State.LAUNCHING, _State.ABANDONED})

# How many ids an error lists: enough to go and look, and no page of them.
_LISTED_IDS = 20


class _Launch:
    """One of them: its request, and what is known of what runs."""

    __slots__ = ("before", "command", "message", "new", "request_id", "state", "until")

    def __init__(self, request_id: int, command: Launching, message: bytes) -> None:
        self.request_id = request_id
        self.command = command
        self.message = message
        self.state = _State.WAITING
        self.before: frozenset[str] = frozenset()
        """What ran before, by id."""
        self.new: tuple[e.InstanceInfo, ...] = ()
        """What was new behind it and fits it."""
        self.until = 0
        """Requests below this id may have made some of that."""

    def happened(self, what: DetachedLaunchInput) -> None:
        """Follow the table. What stands in it is all that can happen."""
        self.state = DETACHED_LAUNCH[self.state, what]


class DetachedLaunches:
    """Those of one conversation, in their order."""

    def __init__(self, outbox: Outbox, requests: Requests) -> None:
        self._outbox = outbox
        self._requests = requests
        self._queue: deque[_Launch] = deque()
        self._listing_id: int | None = None
        self._launched_here: set[str] = set()
        self._refusal: e.Failed | None = None

    def add(self, request_id: int, command: Launching, message: bytes) -> None:
        """Let one wait for its turn; ``message`` is what will launch it."""
        self._queue.append(_Launch(request_id, command, message))

    def proceed(self) -> None:
        """Begin with the next one, if none is under way."""
        if self._queue and self._queue[0].state is _State.WAITING:
            self._queue[0].happened(DetachedLaunchInput.TURN)
            self._ask_what_runs(self._queue[0])

    def has(self, request_id: int) -> bool:
        """Whether this request makes one of these launches."""
        return any(launch.request_id == request_id for launch in self._queue)

    def cancel(self, request_id: int) -> bool:
        """Nobody waits for one any more. True if its answer is still to come.

        One that is sent runs on, as any detached instance does.
        """
        launch = next(launch for launch in self._queue if launch.request_id == request_id)
        launch.happened(DetachedLaunchInput.CANCEL)
        if launch.state is _State.ABANDONED:
            return True
        self._remove(launch)
        return False

    def launched(self, instance_id: str) -> None:
        """An instance was launched attached: it is none of these."""
        if self._queue:
            self._launched_here.add(instance_id)

    def answered(self, request_id: int, outcome: e.Outcome) -> bool:
        """A request was answered. True if it is one of these, and what it made is not known yet.

        Raises `RemoteProtocolError` for an answer that comes before the question.
        """
        launch = self._queue[0] if self._queue else None
        if launch is None or not self.has(request_id):
            return False
        if launch.request_id != request_id or launch.state not in _SENT:
            raise RemoteProtocolError("the server answered a launch before it was sent")
        unnamed = isinstance(outcome, e.LaunchedUnnamed)
        launch.happened(DetachedLaunchInput.LAUNCHED if unnamed else DetachedLaunchInput.REFUSED)
        if launch.state is _State.SEARCHING:
            self._ask_what_runs(launch)
            return True
        self._remove(launch)
        return False

    def awaits(self, request_id: int) -> bool:
        """Whether something was sent for this one that has not been answered."""
        launch = self._queue[0] if self._queue else None
        if launch is None or launch.request_id != request_id:
            return False
        asked = request_id if self._listing_id is None else self._listing_id
        return launch.state is not _State.FOUND and asked not in self._outbox.unsent_requests

    def failed(self, request_id: int) -> None:
        """One has failed by an error that named no request."""
        launch = self._queue[0] if self._queue else None
        if launch is not None and launch.request_id == request_id:
            launch.happened(DetachedLaunchInput.REFUSED)
            self._remove(launch)

    def asked(self, request_id: int) -> bool:
        """Whether this request asks what runs, for one of these."""
        return request_id == self._listing_id

    def listed(self, answer: Answer) -> None:
        """What runs was asked, and this is the answer."""
        launch = self._queue[0]
        self._listing_id = None
        outcome = self._outbox.dialect.interpret(c.ListInstances(), answer)
        if not isinstance(outcome, e.InstancesListed):
            launch.happened(DetachedLaunchInput.REFUSED)
            reason = f"asked what runs: {answer.text}"
            self._refusal = e.Failed(launch.request_id, launch.command, reason)
            return
        launch.happened(DetachedLaunchInput.LISTED)
        if launch.state is _State.LAUNCHING:
            launch.before = frozenset(info.id for info in outcome.instances)
            self._put(launch, launch.message, launch.request_id)
            return
        may_be = self._outbox.dialect.may_be_launch
        launch.new = tuple(
            info
            for info in outcome.instances
            if info.id not in launch.before and may_be(launch.command, info)
        )
        launch.until = self._requests.next_id

    def settled(self) -> e.Launched | e.Failed | None:
        """What settles the one under way, once. Nothing while another launch may claim its find."""
        launch = self._queue[0] if self._queue else None
        outcome: e.Launched | e.Failed
        if launch is None:
            return None
        if self._refusal is not None:
            outcome, self._refusal = self._refusal, None
        elif launch.state is not _State.FOUND or self._requests.launching(launch.until):
            return None
        else:
            launch.happened(DetachedLaunchInput.SETTLED)
            ids = [info.id for info in launch.new if info.id not in self._launched_here]
            outcome = _outcome(launch, ids)
        self._remove(launch)
        return outcome

    def clear(self) -> None:
        """The conversation is over, or closing: none will be launched any more."""
        self._queue.clear()
        self._launched_here.clear()
        self._listing_id = None

    def _remove(self, launch: _Launch) -> None:
        if launch is self._queue[0]:
            self._launched_here.clear()
            self._listing_id = None
        self._queue.remove(launch)
        self.proceed()

    def _ask_what_runs(self, launch: _Launch) -> None:
        self._listing_id = request_id = self._requests.take_id()
        message = self._outbox.dialect.encode(c.ListInstances(), request_id)
        self._put(launch, message, request_id)

    def _put(self, launch: _Launch, message: bytes, request_id: int) -> None:
        # The list, too, goes behind the upload of the program: what runs just before counts.
        self._outbox.put(message, lane_of(self._outbox.dialect, launch.command), request_id)


def unfound(request_id: int, command: c.Command) -> e.Failed:
    """What a launch comes to whose answer is read when nothing can be asked any more."""
    reason = (
        "it was launched, but the connection was closed here before it was known which instance "
        "that is: a list of instances shows it"
    )
    return e.Failed(request_id, command, reason, by_server=False)


def _outcome(launch: _Launch, ids: list[str]) -> e.Launched | e.Failed:
    """What a launch has come to, when ``ids`` are what it may have made."""
    if len(ids) == 1:
        return e.Launched(launch.request_id, ids[0], detached=True)
    if ids:
        more = f" and {len(ids) - _LISTED_IDS} more" if len(ids) > _LISTED_IDS else ""
        reason = (
            f"it was launched, but {len(ids)} instances are new that could be it, and nothing "
            f"tells which: {', '.join(ids[:_LISTED_IDS])}{more}. Attach or terminate them by id"
        )
    else:
        reason = (
            "it was launched, but is in no list any more: it has ended, and these servers "
            f"{ABILITIES['kept-end'].lack}"
        )
    return e.Failed(launch.request_id, launch.command, reason, by_server=False)
