"""Programs: those that were uploaded, compiled and by hash, and those of a registry folder."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import anyio
from anyio import to_thread

if TYPE_CHECKING:
    from pie_anyio.server.program_folder import ProgramFolder
    from pie_anyio.server.runner import Program

__all__ = ["NotFound", "ProgramName", "ProgramStore", "Registry"]


class NotFound(Exception):
    """There is no such program; the text says which, for the user."""


class ProgramStore:
    """Compiled programs, in memory for as long as the server lives; uploads also in a ``folder``.

    ``compile_program`` blocks and is called in a worker thread, as is all that the folder does.
    Content is compiled once, however many ask for it at a time. For the event loop's thread only.
    """

    def __init__(
        self,
        compile_program: Callable[[bytes | str], Program],
        folder: ProgramFolder | None = None,
    ) -> None:
        self._compile = compile_program
        self._folder = folder
        self._programs: dict[Hashable, Program] = {}
        self._compiling: dict[Hashable, anyio.Event] = {}

    def __len__(self) -> int:
        return len(self._programs)

    async def exists(self, content_hash: str) -> bool:
        """Whether the program was uploaded, as soon as that is known. Raises `OSError`."""
        await self._settled(content_hash)
        if content_hash in self._programs:
            return True
        folder = self._folder
        return folder is not None and await to_thread.run_sync(
            lambda: folder.load(content_hash) is not None
        )

    async def get(self, content_hash: str) -> Program:
        """An uploaded program, as soon as it is compiled.

        Raises `NotFound`, and for one from the folder what compiling and reading it raise.
        """

        def load() -> bytes:
            data = None if self._folder is None else self._folder.load(content_hash)
            if data is None:
                raise NotFound(f"Program not found: {content_hash}")
            return data

        return await self.add(content_hash, load)

    async def upload(self, content_hash: str, data: bytes) -> Program:
        """Compile a program, unless it is here already, and then keep it in the folder.

        Raises what `add` does, and `OSError` for what cannot be kept: such a program is not here.
        """
        folder = self._folder

        def keep() -> None:
            if folder is not None:
                folder.keep(content_hash, data)

        await self._settled(content_hash)
        known = self._programs.get(content_hash)
        if known is None:
            return await self.add(content_hash, lambda: data, keep)
        # Its file may be gone meanwhile, or be no longer what it was.
        await to_thread.run_sync(keep)
        return known

    async def add(
        self,
        key: Hashable,
        load: Callable[[], bytes | str],
        compiled: Callable[[], object] = lambda: None,
    ) -> Program:
        """Compile what ``load`` gives, in a worker thread, unless the program is here already.

        ``compiled`` is called there once that went well. Raises what compiling (``ProgramError``)
        and the two functions raise. Cancelling waits for the compiler, which cannot be stopped.
        """
        await self._settled(key)
        if key not in self._programs:
            settled = self._compiling[key] = anyio.Event()

            def work() -> Program:
                program = self._compile(load())
                compiled()
                return program

            try:
                self._programs[key] = await to_thread.run_sync(work)
            finally:
                del self._compiling[key]
                settled.set()
        return self._programs[key]

    async def _settled(self, key: Hashable) -> None:
        while (compiling := self._compiling.get(key)) is not None:
            await compiling.wait()


class ProgramName(NamedTuple):
    """What a registry knows a program by."""

    namespace: str
    name: str
    version: str

    @classmethod
    def parse(cls, text: str) -> ProgramName:
        """Read ``name``, ``name@version``, ``namespace/name`` or ``namespace/name@version``.

        The namespace is ``std`` and the version ``latest`` where none is given. Names are letters,
        digits, ``-`` and ``_``, versions also ``.`` and ``+``; nothing begins with a sign, so
        nothing here leads out of a folder. Raises `NotFound` for anything else.
        """
        match = _NAME.fullmatch(text)
        if match is None:
            raise NotFound(
                f"Program not found: {text[:200]!r} is no program name; "
                "it is to be [namespace/]name[@version]"
            )
        return cls(match["namespace"] or _NAMESPACE, match["name"], match["version"] or "latest")

    def found(self, version: str) -> str:
        """The name of what was found for it, without the usual namespace."""
        full = f"{self.name}@{version or self.version}"
        return full if self.namespace == _NAMESPACE else f"{self.namespace}/{full}"

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}@{self.version}"


_NAMESPACE: Final = "std"

_NAME: Final = re.compile(
    r"(?:(?P<namespace>[a-z0-9][a-z0-9_-]{0,63})/)?"
    r"(?P<name>[a-z0-9][a-z0-9_-]{0,63})"
    r"(?:@(?P<version>[a-z0-9][a-z0-9.+_-]{0,63}))?",
    re.ASCII | re.IGNORECASE,
)

# Where there is both, what was compiled goes before the text.
_SUFFIXES: Final = (".wasm", ".wat")


class Registry:
    """A folder of programs by name. It is looked at anew for each launch.

    ``NAME.wasm`` is ``std/NAME``, ``NAME@VERSION.wasm`` that version of it;
    ``NAMESPACE/NAME.wasm`` and ``NAMESPACE/NAME@VERSION.wasm`` likewise. ``.wat`` is component
    text. ``latest`` is the file without a version or else the highest version.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder)
        if not self._folder.is_dir():
            raise ValueError(f"the registry {os.fspath(folder)!r} is not a folder")

    async def exists(self, text: str) -> bool:
        """Whether there is a program of this name. It may not compile."""
        try:
            await to_thread.run_sync(self._find, ProgramName.parse(text))
        except NotFound:
            return False
        return True

    async def find(self, text: str, store: ProgramStore) -> tuple[Program, str]:
        """The program of this name, compiled when it is first asked for and when its file changes.

        And its full name, with the version that was found. Raises `NotFound`, ``ProgramError``,
        and `OSError` for a file that cannot be read.
        """
        name = ProgramName.parse(text)
        path, changed, size = await to_thread.run_sync(self._find, name)
        program = await store.add((path, changed, size), lambda: _load(path))
        _, _, version = path.stem.partition("@")
        return program, name.found(version)

    def _find(self, name: ProgramName) -> tuple[Path, int, int]:
        """The file of a program, when it was changed, and its size. Blocks."""
        for path in self._candidates(name):
            try:
                status = path.stat()
            except OSError:
                continue
            return path, status.st_mtime_ns, status.st_size
        raise NotFound(f"Program not found: {name}")

    def _candidates(self, name: ProgramName) -> Iterator[Path]:
        folders = [self._folder / name.namespace]
        if name.namespace == _NAMESPACE:
            folders.insert(0, self._folder)
        stem = name.name if name.version == "latest" else f"{name.name}@{name.version}"
        for folder in folders:
            for suffix in _SUFFIXES:
                yield folder / f"{stem}{suffix}"
        if name.version == "latest":
            yield from sorted(
                (
                    path
                    for folder in folders
                    for suffix in _SUFFIXES
                    for path in folder.glob(f"{name.name}@*{suffix}")
                ),
                key=lambda path: (_precedence(path.stem.partition("@")[2]), path.suffix == ".wasm"),
                reverse=True,
            )


def _load(path: Path) -> bytes | str:
    return path.read_bytes() if path.suffix == ".wasm" else path.read_text(encoding="utf-8")


def _precedence(version: str) -> tuple[list[int], bool, list[tuple[bool, int, str]]]:
    """What orders versions: numbers as numbers, and ``1.0-rc.1`` before ``1.0``."""
    release, _, preview = version.partition("+")[0].partition("-")
    return (
        [int(part) if part.isdecimal() else -1 for part in release.split(".")],
        not preview,
        [
            (not part.isdecimal(), int(part) if part.isdecimal() else 0, part)
            for part in preview.split(".")
        ],
    )
