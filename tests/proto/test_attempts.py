"""In which order the addresses of a host are tried, and what is reported if none answers."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from pie_proto.attempts import Attempts, in_order

REFUSED = os.strerror(errno.ECONNREFUSED)
UNREACHABLE = os.strerror(errno.ENETUNREACH)


def refused() -> OSError:
    return OSError(errno.ECONNREFUSED, "in its own words")


def found(*addresses: str) -> list[tuple[int, int, int, str, tuple[object, ...]]]:
    """What `getaddrinfo` would say."""
    return [
        (socket.AF_INET6, 1, 6, "", (address, 80, 0, 0))
        if ":" in address
        else (socket.AF_INET, 1, 6, "", (address, 80))
        for address in addresses
    ]


@pytest.mark.parametrize(
    ("addresses", "order"),
    [
        (["127.0.0.1"], ["127.0.0.1"]),
        (["::1", "::2", "127.0.0.1"], ["::1", "127.0.0.1", "::2"]),
        (["127.0.0.1", "127.0.0.2", "::1", "::2"], ["127.0.0.1", "::1", "127.0.0.2", "::2"]),
        (["127.0.0.1", "::1", "127.0.0.1", "::1"], ["127.0.0.1", "::1"]),
        ([], []),
    ],
)
def test_families_take_turns_and_each_address_comes_once(
    addresses: list[str], order: list[str]
) -> None:
    assert in_order(found(*addresses)) == order


def test_addresses_of_every_form_are_understood() -> None:
    assert in_order([(10, 1, 6, "", ("fe80::1", 80, 0, 3))]) == ["fe80::1%3"]
    assert in_order([(10, 1, 6, "", ("fe80::1%3", 80))]) == ["fe80::1%3"]
    # As where Python was built without IPv6.
    assert in_order([(10, 1, 6, "", (10, b"\0")), *found("127.0.0.1")]) == ["127.0.0.1"]


def test_one_address_is_not_named() -> None:
    attempts = Attempts("pie.test")
    attempts.begin("127.0.0.1")
    assert (attempts.reason, attempts.so_far, attempts.cause) == ("no answer", "", None)
    failure = refused()
    attempts.fail("127.0.0.1", failure)
    assert (attempts.reason, attempts.so_far, attempts.cause) == (REFUSED, "", failure)
    assert attempts.advice == "Is a Pie server listening there?"


def test_several_addresses_are_named_each_with_its_failure() -> None:
    attempts = Attempts("pie.test")
    for address in ("127.0.0.7", "::7", "127.0.0.8"):
        attempts.begin(address)
    unreachable = OSError(errno.ENETUNREACH, "")
    attempts.fail("::7", unreachable)
    assert attempts.cause is unreachable
    attempts.fail("127.0.0.7", refused())
    assert attempts.reason == (f"127.0.0.7: {REFUSED}; ::7: {UNREACHABLE}; 127.0.0.8: no answer")
    assert attempts.so_far == f" ({attempts.reason})"
    cause = attempts.cause
    assert isinstance(cause, ExceptionGroup)
    assert len(cause.exceptions) == 2
    attempts.reached()
    assert (attempts.so_far, attempts.cause) == ("", None)


def test_a_host_without_an_address_is_reported_in_the_resolvers_words() -> None:
    attempts = Attempts("nobody.test")
    failure = socket.gaierror(-2, "Name or service not known")
    attempts.fail_lookup(failure)
    assert (attempts.reason, attempts.so_far) == ("Name or service not known", "")
    assert attempts.cause is failure
    nowhere = Attempts("nobody.test")
    assert (nowhere.reason, nowhere.cause) == ("the name has no address", None)


def test_of_an_address_with_a_zone_the_interface_is_asked_for() -> None:
    assert "the network interface 'Wi-Fi0'" in Attempts("fe80::7%Wi-Fi0").advice
