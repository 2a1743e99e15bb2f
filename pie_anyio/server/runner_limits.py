"""What running programs may take of the server: every bound by name, without wasmtime."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["RunnerLimits"]

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerLimits:
    """What one instance may take, unless said otherwise. Over it, it ends as ServerError.

    Not so: a call with more than ``call_bytes`` is the program's fault, and ends it by an Exception
    that names the limit. A program that asks for more memory *while it runs* is refused it, as the
    WebAssembly instruction has it, and most end by a trap then: that is an Exception. The last
    three end nothing.
    """

    memory_bytes: int = 1024 * _MIB
    """For each linear memory. A Python program takes some 100 MiB."""
    memories: int = 16
    """Linear memories, ``memory_bytes`` each; most programs have one."""
    table_elements: int = 1_000_000
    """For each table, 8 bytes each. A large program has some 20,000."""
    tables: int = 64
    """Tables, ``table_elements`` each; most programs have one or two."""
    instances: int = 1000
    """Core instances inside one component. A Python program has some 50."""
    call_bytes: int = 2 * _MIB
    """Bytes of one ``list<u8>`` from the program: so much can it send as one blob. Wasmtime itself
    refuses more than 2,796,202 in one call, whatever is said here."""
    held_bytes: int = 256 * _MIB
    """Blobs, and messages not yet received, that the server keeps for an instance in its own
    memory: as much as the largest upload of a real server."""
    store_bytes: int = 64 * _MIB
    """Characters in the key-value store, which all instances of a server share. Over it, the one
    that would keep more ends."""
    running_instances: int = 1000
    """Instances that run at one time, all users' together; another launch is refused, in words.
    Each has a thread: a thousand small ones take some 60 MiB, and many systems allow a user no
    more than a few thousand threads."""
    finished_instances: int = 1000
    """Instances that have ended and wait to be attached to; the oldest are forgotten."""
    kept_bytes: int = 1 * _MIB
    """Of each of stdout and stderr, for an instance that nobody is attached to: the last so many,
    as a real server keeps them."""
