"""What programs are called where servers know them by name: manifests, identifiers, hashes."""

from __future__ import annotations

import re
import tomllib
from typing import NamedTuple

from pie_proto.commands import is_hash
from pie_proto.errors import LocalProtocolError

__all__ = [
    "Program",
    "completed",
    "hash_in",
    "is_identifier",
    "is_name",
    "manifest_for",
    "name_of",
    "program_in",
]

# A program that comes without a manifest is called after its hash, so that it is found again by it,
# also by another process. The version says nothing then; servers want one.
_PREFIX = "blake3-"
_VERSION = "0.1.0"

# Servers make files of these names, and part the version from the name at an "@".
_NAME = re.compile(r"[^/\\@\x00-\x1f\x7f]+")
_NUMBERS = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+")


class Program(NamedTuple):
    """What a program is called."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


def name_of(program_hash: str) -> Program:
    """What a program without a manifest is called."""
    return Program(_PREFIX + program_hash, _VERSION)


def hash_in(identifier: str) -> str | None:
    """The hash of a program that is called after it; ``None`` for any other."""
    name, _, version = identifier.partition("@")
    program_hash = name.removeprefix(_PREFIX)
    if program_hash == name or version not in {"", _VERSION} or not is_hash(program_hash):
        return None
    return program_hash


def manifest_for(program_hash: str) -> str:
    """The manifest of a WebAssembly component that comes without one (TOML)."""
    name, version = name_of(program_hash)
    return f'[package]\nname = "{name}"\nversion = "{version}"\n'


def is_name(text: str) -> bool:
    """Whether a text is ``name`` or ``name@major.minor.patch``."""
    name, at, version = text.partition("@")
    return _NAME.fullmatch(name) is not None and (not at or _NUMBERS.fullmatch(version) is not None)


def is_identifier(text: str) -> bool:
    """Whether a text is ``name@major.minor.patch``."""
    return "@" in text and is_name(text)


def completed(manifest: str, program_hash: str) -> str:
    """The manifest with a ``[package]``: one that has none has its program called after its hash.

    Raises `LocalProtocolError` if it is not TOML.
    """
    if "package" in _read(manifest):
        return manifest
    return f"{manifest.rstrip()}\n\n{manifest_for(program_hash)}".lstrip()


def program_in(manifest: str, program_hash: str) -> Program:
    """What a program is called. Raises `LocalProtocolError` if servers could not tell."""
    package = _read(manifest).get("package")
    if package is None:
        return name_of(program_hash)
    if not isinstance(package, dict):
        raise LocalProtocolError('the manifest\'s "package" is no table with name and version')
    for key in Program._fields:
        if not isinstance(package.get(key), str):
            raise LocalProtocolError(f"the manifest's [package] has no text {key!r}")
    program = Program(package["name"], package["version"])
    if not is_identifier(str(program)):
        raise LocalProtocolError(
            f"the manifest calls its program {str(program)[:80]!r}; servers find one again only by "
            "a name without '/' and '@' and a version of three numbers, as in echo@0.1.0"
        )
    return program


def _read(manifest: str) -> dict[str, object]:
    try:
        return tomllib.loads(manifest)
    except (ValueError, RecursionError) as exc:
        raise LocalProtocolError(f"the manifest is not TOML: {exc}") from exc
