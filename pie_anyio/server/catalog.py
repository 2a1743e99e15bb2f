"""Programs by the names that their manifests give them: which content is meant by a name."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from anyio import to_thread

if TYPE_CHECKING:
    from pie_anyio.server.program_folder import ProgramFolder

__all__ = ["Catalog", "Entry"]


class Entry(NamedTuple):
    """A program by its full name, ``name@version``, and the hash of its content."""

    program: str
    hash: str


class Catalog:
    """Names of uploaded programs, as long as the server lives; with a ``folder``, longer.

    The last upload of a name and version is what is meant. For the event loop's thread only.
    """

    def __init__(self, folder: ProgramFolder | None = None) -> None:
        self._folder = folder
        self._hashes: dict[str, dict[str, str]] = {}

    async def add(self, program: str, content_hash: str) -> None:
        """From now on ``program``, a full name, means this content. Raises `OSError`."""
        folder = self._folder
        if folder is not None:
            await to_thread.run_sync(lambda: folder.name(program, content_hash))
        name, _, version = program.partition("@")
        self._hashes.setdefault(name, {})[version] = content_hash

    async def find(self, text: str) -> Entry | None:
        """What ``name@version`` means, or ``name``: the highest version. Raises `OSError`."""
        name, at, version = text.partition("@")
        folder = self._folder
        if folder is None:
            versions = self._hashes.get(name, {})
        else:
            # Other servers may use it too.
            versions = await to_thread.run_sync(lambda: folder.versions(name))
        if not at:
            version = max(versions, key=_precedence, default="")
        content_hash = versions.get(version)
        return None if content_hash is None else Entry(f"{name}@{version}", content_hash)


def _precedence(version: str) -> list[tuple[int, str]]:
    """What orders versions of three numbers, of however many digits."""
    numbers = (part.lstrip("0") for part in version.split("."))
    return [(len(number), number) for number in numbers]
