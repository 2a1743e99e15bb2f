"""WASI preview 2 as far as a Pie program needs it: streams, waiting, clocks, randomness.

There are no files, no network and no standard input. What belongs to WASI and is not here can be
imported, and says so when it is called. Signatures: https://github.com/WebAssembly/WASI, 0.2.
"""

from __future__ import annotations

import os
import time
from typing import Final, NoReturn

from pie_anyio.server.host import (
    Err,
    Host,
    HostError,
    HostFunction,
    HostFunctions,
    Pollable,
    Resource,
    Unwind,
)
from pie_proto.events import Event

__all__ = ["FUNCTIONS", "stand_in"]

# What `check-write` permits, and `blocking-write-and-flush` takes, in wasmtime's own WASI: a
# program that works here should not meet its first limit on the real server.
_WRITE_PERMIT: Final = 64 * 1024
_BLOCKING_WRITE: Final = 4096

_CLOSED: Final = Err(("closed", None))


class _InputStream(Resource):
    """Standard input, which is at its end."""


class _OutputStream(Resource):
    """Standard output or standard error of an instance."""

    __slots__ = ("event",)

    def __init__(self, event: Event) -> None:
        self.event = event


# ------------------------------------------------------------------------------------- wasi:io


def _poll(host: Host, pollables: list[Pollable]) -> list[int]:
    if not pollables:
        raise HostError("there is nothing to wait for")
    return host.wait(pollables)


def _ready(_host: Host, pollable: Pollable) -> bool:
    return pollable.ready(time.monotonic_ns())


def _block(host: Host, pollable: Pollable) -> None:
    host.wait([pollable])


def _read(_host: Host, _stream: _InputStream, _length: int) -> Err:
    return _CLOSED


def _always_ready(_host: Host, _stream: Resource) -> Pollable:
    return Pollable()


def _check_write(_host: Host, _stream: _OutputStream) -> int:
    return _WRITE_PERMIT


def _write(host: Host, stream: _OutputStream, contents: bytes) -> None:
    _check_length(len(contents), _WRITE_PERMIT)
    host.write(stream.event, contents)


def _blocking_write(host: Host, stream: _OutputStream, contents: bytes) -> None:
    _check_length(len(contents), _BLOCKING_WRITE)
    host.write(stream.event, contents)


def _write_zeroes(host: Host, stream: _OutputStream, length: int) -> None:
    _check_length(length, _WRITE_PERMIT)
    host.write(stream.event, bytes(length))


def _blocking_write_zeroes(host: Host, stream: _OutputStream, length: int) -> None:
    _check_length(length, _BLOCKING_WRITE)
    host.write(stream.event, bytes(length))


def _check_length(length: int, most: int) -> None:
    if length > most:
        raise HostError(f"{length} bytes at once, where {most} are allowed")


def _flush(_host: Host, _stream: _OutputStream) -> None:
    """Nothing is kept back: every write has gone out."""


def _splice(_host: Host, _stream: _OutputStream, _source: _InputStream, _length: int) -> Err:
    return _CLOSED


# ------------------------------------------------------------------------------------ wasi:cli


def _get_environment(_host: Host) -> list[tuple[str, str]]:
    return []


def _get_arguments(host: Host) -> list[str]:
    # By convention the first is the program's own name; `inferlet:core/runtime` has them without.
    return ["inferlet", *host.arguments]


def _nothing(_host: Host) -> None:
    return None


def _exit(host: Host, status: object) -> NoReturn:
    if isinstance(status, Err):
        _leave(host, 1)
    _leave(host, 0)


def _exit_with_code(host: Host, code: int) -> NoReturn:
    _leave(host, code)


def _leave(host: Host, code: int) -> NoReturn:
    host.flush()
    if code:
        host.end(Event.Exception, f"exited with status {code}")
    else:
        host.end(Event.Completed, host.return_value)
    raise Unwind


def _get_stdin(_host: Host) -> _InputStream:
    return _InputStream()


def _get_stdout(_host: Host) -> _OutputStream:
    return _OutputStream(Event.Stdout)


def _get_stderr(_host: Host) -> _OutputStream:
    return _OutputStream(Event.Stderr)


# ------------------------------------------------------------------------------------ wasi:clocks


def _monotonic_now(_host: Host) -> int:
    return time.monotonic_ns()


def _resolution(_host: Host) -> int:
    return 1


def _subscribe_instant(_host: Host, when: int) -> Pollable:
    return Pollable(deadline=when)


def _subscribe_duration(_host: Host, duration: int) -> Pollable:
    return Pollable(deadline=time.monotonic_ns() + duration)


def _wall_now(_host: Host) -> dict[str, int]:
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return {"seconds": seconds, "nanoseconds": nanoseconds}


def _wall_resolution(_host: Host) -> dict[str, int]:
    return {"seconds": 0, "nanoseconds": 1}


# ------------------------------------------------------------------------------------ wasi:random


def _random_bytes(host: Host, length: int) -> bytes:
    if length > host.call_bytes:
        raise HostError(
            f"{length} bytes in one call, more than {host.call_bytes} (limit call_bytes)"
        )
    return os.urandom(length)


def _random_u64(_host: Host) -> int:
    return int.from_bytes(os.urandom(8), "little")


def _seed(host: Host) -> tuple[int, int]:
    return _random_u64(host), _random_u64(host)


# -------------------------------------------------------------------------------- wasi:filesystem


def _no_directories(_host: Host) -> list[tuple[Resource, str]]:
    return []


# ------------------------------------------------------------------------------------ wasi:sockets


def _instance_network(_host: Host) -> Resource:
    return Resource()


def _no_network(_host: Host, *_arguments: object) -> Err:
    return Err("access-denied")


FUNCTIONS: Final[HostFunctions] = {
    "wasi:io/poll#poll": _poll,
    "wasi:io/poll#[method]pollable.ready": _ready,
    "wasi:io/poll#[method]pollable.block": _block,
    "wasi:io/streams#[method]input-stream.read": _read,
    "wasi:io/streams#[method]input-stream.blocking-read": _read,
    "wasi:io/streams#[method]input-stream.skip": _read,
    "wasi:io/streams#[method]input-stream.blocking-skip": _read,
    "wasi:io/streams#[method]input-stream.subscribe": _always_ready,
    "wasi:io/streams#[method]output-stream.check-write": _check_write,
    "wasi:io/streams#[method]output-stream.write": _write,
    "wasi:io/streams#[method]output-stream.blocking-write-and-flush": _blocking_write,
    "wasi:io/streams#[method]output-stream.flush": _flush,
    "wasi:io/streams#[method]output-stream.blocking-flush": _flush,
    "wasi:io/streams#[method]output-stream.subscribe": _always_ready,
    "wasi:io/streams#[method]output-stream.write-zeroes": _write_zeroes,
    "wasi:io/streams#[method]output-stream.blocking-write-zeroes-and-flush": _blocking_write_zeroes,
    "wasi:io/streams#[method]output-stream.splice": _splice,
    "wasi:io/streams#[method]output-stream.blocking-splice": _splice,
    "wasi:cli/environment#get-environment": _get_environment,
    "wasi:cli/environment#get-arguments": _get_arguments,
    "wasi:cli/environment#initial-cwd": _nothing,
    "wasi:cli/exit#exit": _exit,
    "wasi:cli/exit#exit-with-code": _exit_with_code,
    "wasi:cli/stdin#get-stdin": _get_stdin,
    "wasi:cli/stdout#get-stdout": _get_stdout,
    "wasi:cli/stderr#get-stderr": _get_stderr,
    "wasi:cli/terminal-stdin#get-terminal-stdin": _nothing,
    "wasi:cli/terminal-stdout#get-terminal-stdout": _nothing,
    "wasi:cli/terminal-stderr#get-terminal-stderr": _nothing,
    "wasi:clocks/monotonic-clock#now": _monotonic_now,
    "wasi:clocks/monotonic-clock#resolution": _resolution,
    "wasi:clocks/monotonic-clock#subscribe-instant": _subscribe_instant,
    "wasi:clocks/monotonic-clock#subscribe-duration": _subscribe_duration,
    "wasi:clocks/wall-clock#now": _wall_now,
    "wasi:clocks/wall-clock#resolution": _wall_resolution,
    "wasi:random/random#get-random-bytes": _random_bytes,
    "wasi:random/random#get-random-u64": _random_u64,
    "wasi:random/insecure#get-insecure-random-bytes": _random_bytes,
    "wasi:random/insecure#get-insecure-random-u64": _random_u64,
    "wasi:random/insecure-seed#insecure-seed": _seed,
    "wasi:filesystem/preopens#get-directories": _no_directories,
    "wasi:sockets/instance-network#instance-network": _instance_network,
    "wasi:sockets/ip-name-lookup#resolve-addresses": _no_network,
    "wasi:sockets/tcp-create-socket#create-tcp-socket": _no_network,
    "wasi:sockets/udp-create-socket#create-udp-socket": _no_network,
}
"""What WASI functions there are; nothing here ever fails with an ``error`` to ask about."""

# Toolchains link these in whether a program uses them or not.
_KNOWN_PACKAGES: Final = frozenset(
    {
        "wasi:cli",
        "wasi:clocks",
        "wasi:filesystem",
        "wasi:http",
        "wasi:io",
        "wasi:random",
        "wasi:sockets",
    }
)


def stand_in(name: str) -> HostFunction | None:
    """For a WASI function that is not here: one that says so. ``None`` if it is not WASI's."""
    if name.partition("/")[0] not in _KNOWN_PACKAGES:
        return None

    def unavailable(_host: Host) -> NoReturn:
        raise HostError("the embedded server has no files, no network and no terminal")

    return unavailable
