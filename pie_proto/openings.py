"""How connections are opened: which paths are asked for, and what a server may be that opens one.

Servers 0.2 to 0.4 take any path, later ones listen on one of their own, so a client that was given
no path can find them all: it asks for ``/``, and if there is nothing (404, and only that: whoever
stands before a server may answer anything) for the path of the later ones. A path that was given is
asked for, once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from pie_proto.connection import ClientConnection
from pie_proto.dialects import Dialect
from pie_proto.dialects.process import PROCESS_0_5
from pie_proto.errors import ConnectFailed
from pie_proto.events import Blob
from pie_proto.families import FAMILIES, family_named
from pie_proto.limits import Limits
from pie_proto.request_headers import checked_headers

__all__ = ["Opening", "openings"]

_NOT_FOUND: Final = 404


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """One way to open a connection."""

    target: str
    headers: tuple[tuple[str, str], ...]
    families: tuple[Dialect, ...]
    """What a server may be that takes it."""
    is_last: bool
    """Whether there is no other way if it fails."""
    nothing_at: tuple[str, ...] = ()
    """The paths before it, where it is tried because there is nothing."""

    def connection(
        self, host: str, *, now: float, limits: Limits, blob_type: type[Blob] = Blob
    ) -> ClientConnection:
        """A connection that is opened so; ``host`` is what the ``Host`` header says."""
        return ClientConnection(
            host,
            self.target,
            now=now,
            headers=self.headers,
            dialect=self.families,
            limits=limits,
            blob_type=blob_type,
            # A body is not waited for where it explains nothing to anybody: the next path is asked.
            status_suffices=() if self.is_last else (_NOT_FOUND,),
        )

    def leads_on(self, error: BaseException) -> bool:
        """Whether this ``error`` leaves it to the next one."""
        return not self.is_last and isinstance(error, ConnectFailed) and error.status == _NOT_FOUND

    def named(self, uri: str) -> str:
        """What messages call a server at ``uri`` that was asked so."""
        if self.nothing_at:
            return f"{uri} ({self.target}, as there is nothing at {' and '.join(self.nothing_at)})"
        return uri if self.target == "/" or uri.endswith(self.target) else f"{uri} ({self.target})"


def openings(
    target: str | None,
    *,
    dialect: str | Dialect = "auto",
    identity: str | None = None,
    headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
) -> tuple[Opening, ...]:
    """The ways to open a connection, to be tried in turn; ``target`` is a path that was given.

    ``dialect`` is the name of a family or the family, or ``"auto"``. ``identity``, TENANT/USER, is
    who the client is to servers that have it said in the opening request. Raises `ValueError` for
    a family that there is not, and for an identity or headers that cannot be sent.
    """
    said = _identified(identity, checked_headers(headers))
    if dialect != "auto":
        family = family_named(dialect) if isinstance(dialect, str) else dialect
        targets: list[tuple[str, tuple[Dialect, ...]]] = [
            (target or family.capabilities.default_target, (family,))
        ]
    elif target is not None:
        targets = [(target, tuple(FAMILIES.values()))]
    else:
        targets = [
            ("/", tuple(FAMILIES.values())),
            (PROCESS_0_5.capabilities.default_target, (PROCESS_0_5,)),
        ]
    paths = tuple(path for path, _ in targets)
    return tuple(
        Opening(
            target=path,
            headers=said,
            families=families,
            is_last=at == len(paths) - 1,
            nothing_at=paths[:at],
        )
        for at, (path, families) in enumerate(targets)
    )


def _identified(
    identity: object, headers: tuple[tuple[str, str], ...]
) -> tuple[tuple[str, str], ...]:
    name = PROCESS_0_5.capabilities.identity_header
    if identity is None or name is None:
        return headers
    if not isinstance(identity, str) or not identity.rpartition("/")[2].strip():
        raise ValueError(f"an identity is TENANT/USER, as in 'default/ada', not {identity!r}")
    if any(given.lower() == name for given, _ in headers):
        raise ValueError(f"identity= is the header {name}: give one of them")
    return (*headers, *checked_headers([(name, identity)]))
