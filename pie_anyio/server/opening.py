"""Whom to let in by the opening request alone: its path, its headers, and who it says it is."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from pie_anyio.server.users import Users
from pie_proto.dialects import Capabilities
from pie_proto.events import HandshakeReceived

__all__ = ["named_user", "turned_away"]


def turned_away(
    opening: HandshakeReceived, users: Users, abilities: Capabilities
) -> tuple[int, str] | None:
    """Why not even to talk to this client, if so: an HTTP status and a text."""
    path = opening.target.partition("?")[0]
    if not abilities.any_target and path != abilities.default_target:
        return HTTPStatus.NOT_FOUND, f"there is nothing here: connect to {abilities.default_target}"
    if (objection := users.objection(opening.headers)) is not None:
        return HTTPStatus.FORBIDDEN, objection
    if abilities.identity_header is not None and named_user(opening, abilities) is None:
        return (
            HTTPStatus.UNAUTHORIZED,
            f"the header {abilities.identity_header} is to say who you are, as TENANT/USER",
        )
    return None


def named_user(opening: HandshakeReceived, abilities: Capabilities) -> str | None:
    """Who the opening request says the user is, tenant and all; ``None`` if it does not."""
    headers: Mapping[str, str] = dict(reversed(opening.headers))
    identity = headers.get(abilities.identity_header or "", "").strip()
    return identity if identity.rpartition("/")[2].strip() else None
