"""The instances of a server: running or finished, attached or not, and whose they are."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import anyio
from anyio.lowlevel import current_token

from pie_anyio.server.output import OutputQueue
from pie_anyio.server.runner_limits import RunnerLimits
from pie_proto.dialects import Capabilities
from pie_proto.dialects.instance import INSTANCE
from pie_proto.events import Event, InstanceInfo

if TYPE_CHECKING:
    from pie_anyio.server.runner import Execution, Program

__all__ = ["Instance", "Instances", "Listener", "Start", "call_soon"]

_log = logging.getLogger(__name__)


class Start(Protocol):
    """Makes an execution of a program, ready to run."""

    def __call__(
        self,
        program: Program,
        *,
        instance_id: str,
        arguments: Sequence[str],
        output: Callable[[Event, str | bytes], None],
    ) -> Execution:
        """Make it; it runs when it is told to, in the thread that does so."""
        ...


class Listener(Protocol):
    """Whom an instance is attached to. Called in the event loop."""

    def readable(self, instance: Instance) -> None:
        """The instance has something to take; told once until all of it is taken."""


def call_soon() -> Callable[[Callable[[], object]], object]:
    """A function, for any thread, that has the event loop of this one call something soon.

    It neither waits nor blocks, which `anyio.from_thread` would: a round trip for each event.
    """
    native = current_token().native_token
    schedule: Callable[[Callable[[], object]], object] = (
        getattr(native, "run_sync_soon", None) or native.call_soon_threadsafe  # type: ignore[attr-defined]  # trio, asyncio
    )
    return schedule


class Instance:
    """One run of a program: its thread, what it says, and who listens.

    ``name`` is the program's, ``given`` the input that ``arguments`` were made from, if any.
    """

    def __init__(
        self,
        owner: str,
        arguments: tuple[str, ...],
        *,
        name: str = "",
        given: str | None = None,
        schedule: Callable[[Callable[[], object]], object],
        kept_bytes: int,
    ) -> None:
        self.id = str(uuid.uuid4())
        self.owner = owner
        self.arguments = arguments
        self.name = name
        self.given = given
        self.output = OutputQueue(lambda: schedule(self._readable), kept_bytes)
        self.listener: Listener | None = None

    def __repr__(self) -> str:
        return f"<Instance {self.id} of {self.owner!r}, {self.status}>"

    @property
    def status(self) -> str:
        """``Attached``, ``Detached``, or ``Finished``: ended, and nobody was told."""
        if self.listener is not None:
            return "Attached"
        return "Finished" if self.output.finished else "Detached"

    def attach(self, listener: Listener) -> None:
        """Let ``listener`` take what the instance says, and has said and was kept."""
        self.listener = listener
        self.output.attach()
        if self.output.waiting:
            listener.readable(self)

    def _readable(self) -> None:
        # Between the call and this, it may have been detached, or attached anew.
        if self.listener is not None:
            self.listener.readable(self)


class Instances:
    """All instances of one server. For the event loop's thread only.

    ``abilities`` say what becomes of an instance that nobody is attached to.
    """

    def __init__(
        self, start: Start, limits: RunnerLimits, abilities: Capabilities = INSTANCE.capabilities
    ) -> None:
        self._start = start
        self._limits = limits
        self._abilities = abilities
        self._kept_bytes = limits.kept_bytes if abilities.keeps_output else 0
        self._schedule = call_soon()
        self._all: dict[str, Instance] = {}
        self._running: dict[Instance, tuple[Execution, threading.Thread]] = {}
        self._finished: dict[Instance, None] = {}
        self._stopped: anyio.Event | None = None

    def launch(
        self,
        owner: str,
        program: Program,
        arguments: tuple[str, ...],
        listener: Listener | None,
        *,
        name: str = "",
        given: str | None = None,
    ) -> Instance:
        """Run a program in a thread of its own, for ``listener`` unless that is ``None``.

        Raises `ValueError` for arguments that no program can be given, and `RuntimeError` when the
        server is closing, runs as many as it may, or has no thread to spare.
        """
        if self._stopped is not None:
            raise RuntimeError("the server is closing")
        if len(self._running) >= self._limits.running_instances:
            raise RuntimeError(
                f"{len(self._running)} instances run here, and no more may at one time "
                "(limit running_instances)"
            )
        instance = self._new(owner, arguments, name, given)
        execution = self._start(
            program, instance_id=instance.id, arguments=arguments, output=instance.output.put
        )
        thread = threading.Thread(
            target=self._run,
            args=(instance, execution),
            name=f"pie-instance-{instance.id}",
            daemon=True,  # joined by aclose(); never what keeps a dying interpreter alive
        )
        if listener is not None:
            instance.attach(listener)
        thread.start()
        self._all[instance.id] = instance
        self._running[instance] = (execution, thread)
        return instance

    def fail(
        self, owner: str, listener: Listener | None, reason: str, *, name: str, given: str
    ) -> Instance:
        """An instance that has ended with an error before it began."""
        instance = self._new(owner, (), name, given)
        if listener is not None:
            instance.attach(listener)
        self._all[instance.id] = instance
        instance.output.finish(Event.Exception, reason)
        if listener is None:
            self._note_finished(instance)
        return instance

    def _new(
        self, owner: str, arguments: tuple[str, ...], name: str, given: str | None
    ) -> Instance:
        return Instance(
            owner,
            arguments,
            name=name,
            given=given,
            schedule=self._schedule,
            kept_bytes=self._kept_bytes,
        )

    def find(self, owner: str, instance_id: str) -> Instance | None:
        """The owner's instance of this canonical id, running or finished and unclaimed."""
        instance = self._all.get(instance_id)
        return instance if instance is not None and self._is_there(owner, instance) else None

    def _is_there(self, owner: str, instance: Instance) -> bool:
        gone = instance.output.finished and not self._abilities.keeps_finished
        return instance.owner == owner and not gone

    def execution(self, instance: Instance) -> Execution | None:
        """The execution of an instance, as long as it runs."""
        running = self._running.get(instance)
        return None if running is None else running[0]

    def listed(self, owner: str) -> tuple[InstanceInfo, ...]:
        """The owner's instances, in the order of their launch."""
        return tuple(
            InstanceInfo(
                id=instance.id,
                arguments=instance.arguments,
                status=instance.status,
                program=instance.name,
                input=instance.given,
            )
            for instance in self._all.values()
            if self._is_there(owner, instance)
        )

    def attach(self, instance: Instance, listener: Listener) -> None:
        """Let ``listener`` take what the instance kept, says from now on, and how it ends."""
        self._finished.pop(instance, None)
        instance.attach(listener)

    def detach(self, instance: Instance) -> None:
        """Nobody listens any more: keep what was not taken, and what the instance still says.

        Where instances do not outlive that, end it, and find it no more from now on.
        """
        instance.listener = None
        instance.output.detach()
        if not self._abilities.keeps_instances:
            self.terminate(instance)
            self.claimed(instance)
        elif instance.output.finished:
            self._note_finished(instance)

    def claimed(self, instance: Instance) -> None:
        """The end of the instance has been told: forget it."""
        instance.listener = None
        self._all.pop(instance.id, None)
        self._finished.pop(instance, None)

    def terminate(self, instance: Instance, reason: str = "Signal termination") -> None:
        """End the instance as Aborted. What it said before still comes, and then its end."""
        execution = self.execution(instance)
        if execution is not None:
            execution.terminate(reason)
            instance.output.close()

    @property
    def running(self) -> int:
        """How many instances run."""
        return len(self._running)

    @property
    def blocked(self) -> int:
        """How many of them wait for a client to read."""
        return sum(instance.output.blocked for instance in self._running)

    def close(self) -> None:
        """Launch nothing more, and terminate everything, without waiting for it."""
        if self._stopped is None:
            self._stopped = anyio.Event()
            for instance in list(self._running):
                self.terminate(instance, "Server closed")
            if not self._running:
                self._stopped.set()

    async def aclose(self) -> None:
        """Terminate everything and wait until its threads are gone. Not to be cancelled."""
        self.close()
        assert self._stopped is not None  # noqa: S101 - close() has made it
        await self._stopped.wait()
        self._all.clear()
        self._finished.clear()

    # ------------------------------------------------------------------------ the instance's life

    def _run(self, instance: Instance, execution: Execution) -> None:
        """The whole life of an instance's thread."""
        try:
            event, text = execution.run()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the instance has ended
            event, text = Event.ServerError, f"{type(error).__name__}: {error}"
            _log.exception("the execution of instance %s failed", instance.id)
        instance.output.finish(event, text)
        self._schedule(lambda: self._ended(instance))

    def _ended(self, instance: Instance) -> None:
        _, thread = self._running.pop(instance)
        # What called for this was its last act.
        thread.join()
        if instance.listener is None:
            self._note_finished(instance)
        if self._stopped is not None and not self._running:
            self._stopped.set()

    def _note_finished(self, instance: Instance) -> None:
        if instance.id not in self._all:
            return
        if not self._abilities.keeps_finished:
            self.claimed(instance)
            return
        self._finished[instance] = None
        if len(self._finished) > self._limits.finished_instances:
            self.claimed(next(iter(self._finished)))
