"""Connecting to a host of several addresses: their order, and what is reported if none answers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TypeVar

from pie_proto.errors import describe_cause

__all__ = ["ATTEMPT_DELAY", "Attempts", "in_order"]

ATTEMPT_DELAY: Final = 0.25
"""Seconds after which the next address is tried beside those that have not answered (RFC 8305,
section 8: "Connection Attempt Delay")."""

_Family = TypeVar("_Family")


def in_order(
    found: Iterable[tuple[_Family, object, object, object, tuple[object, ...]]],
) -> list[str]:
    """The addresses that `getaddrinfo` found, in the order in which they are to be tried.

    That is its own order, but families take turns (RFC 8305, section 4). Each address comes once,
    with the number of its zone if it has one.
    """
    families: dict[_Family, list[str]] = {}
    for family, _, _, _, (host, *rest) in found:
        if not isinstance(host, str):
            continue  # of a family that this Python does not know
        zone = rest[2] if len(rest) > 2 else 0
        address = f"{host}%{zone}" if zone else host
        addresses = families.setdefault(family, [])
        if address not in addresses:
            addresses.append(address)
    order: list[str] = []
    queues = list(families.values())
    while queues:
        order += [queue.pop(0) for queue in queues]
        queues = [queue for queue in queues if queue]
    return order


class Attempts:
    """What came of connecting to each address of one host."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._failures: dict[str, Exception | None] = {}
        self._lookup: Exception | None = None

    def begin(self, address: str) -> None:
        """Note that ``address`` is being tried."""
        self._failures[address] = None

    def fail(self, address: str, failure: Exception) -> None:
        """Note why ``address`` was not reached."""
        self._failures[address] = failure

    def reached(self) -> None:
        """Note that an address was reached: the failures of others explain nothing more."""
        self._failures.clear()

    def fail_lookup(self, failure: Exception) -> None:
        """Note why the host has no address."""
        self._lookup = failure

    @property
    def reason(self) -> str:
        """Why there is no connection: in short for one address, by address for several."""
        if self._lookup is not None:
            return describe_cause(self._lookup)
        reasons = {
            address: "no answer" if failure is None else describe_cause(failure)
            for address, failure in self._failures.items()
        }
        if not reasons:
            return "the name has no address"
        if len(reasons) == 1:
            return next(iter(reasons.values()))
        return "; ".join(f"{address}: {reason}" for address, reason in reasons.items())

    @property
    def advice(self) -> str:
        """What to look at, as a question."""
        zone = self._host.partition("%")[2]
        if zone:
            return (
                f"Does this machine have the network interface {zone!r}, and is a Pie server "
                "listening there?"
            )
        return "Is a Pie server listening there?"

    @property
    def so_far(self) -> str:
        """What to add where time is up: what came of each address, if there are several."""
        return f" ({self.reason})" if len(self._failures) > 1 else ""

    @property
    def cause(self) -> Exception | None:
        """What was raised; a group, if several addresses failed."""
        if self._lookup is not None:
            return self._lookup
        failures = [failure for failure in self._failures.values() if failure is not None]
        if len(failures) > 1:
            return ExceptionGroup("no address was reached", failures)
        return failures[0] if failures else None
