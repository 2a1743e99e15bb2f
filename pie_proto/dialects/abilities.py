"""What one family of servers can and another cannot, in words that errors, docs and tests share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from pie_proto.dialects import Capabilities, ProgramsBy

__all__ = ["ABILITIES", "Ability", "lacks"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ability:
    """Something that not every family of servers can."""

    id: str
    about: str
    """What one can do with it."""
    lack: str
    """What servers do that lack it, behind "these servers"."""
    instead: str
    """What a caller does then."""
    has: Callable[[Capabilities], bool] = field(repr=False)
    """Whether a family has it."""

    def missing(self, can: Capabilities) -> str:
        """What these servers are, what they lack, and what to do instead."""
        return f"servers {can.servers} {self.lack}: {self.instead}"


ABILITIES: Final[Mapping[str, Ability]] = MappingProxyType(
    {
        ability.id: ability
        for ability in (
            Ability(
                id="proof",
                about="have a user prove with a key who it is",
                lack="believe the opening request about who the client is",
                instead="give identity=; a key stays unused",
                has=lambda can: can.proof,
            ),
            Ability(
                id="token",
                about="authenticate with the server's internal token",
                lack="know no internal token",
                instead="give a user name",
                has=lambda can: can.tokens,
            ),
            Ability(
                id="manifest",
                about="give a program a name, and upload one in source",
                lack="know programs by their hash and take no manifest",
                instead="upload the program without",
                has=lambda can: can.programs_by is ProgramsBy.NAME,
            ),
            Ability(
                id="input",
                about="give a program an input that is an object",
                lack="give programs a list of arguments and no input",
                instead="use arguments",
                has=lambda can: can.takes_input,
            ),
            Ability(
                id="json-result",
                about="have what a program returns as what it is, not as text",
                lack="return text, whatever it says",
                instead="read it with json.loads",
                has=lambda can: can.returns_json,
            ),
            Ability(
                id="server-launch",
                about="launch a program that is a server of its own",
                lack="launch no programs that are servers",
                instead="launch it as an instance",
                has=lambda can: can.server_launch,
            ),
            Ability(
                id="confirmed-blobs",
                about="know that a blob has arrived",
                lack="never say whether a blob has arrived",
                instead="have the program send a message when it has it",
                has=lambda can: can.confirms_blobs,
            ),
            Ability(
                id="detached-id",
                about="be told the id of what is launched detached",
                lack="do not say which instance a detached launch has made",
                instead="it is found in the list of instances, unless it has ended by then",
                has=lambda can: can.detached_launch_has_id,
            ),
            Ability(
                id="kept-instances",
                about="leave an instance that one is attached to, and come back to it",
                lack="end instances with the connection that they are attached to",
                instead="launch detached what is to live on",
                has=lambda can: can.keeps_instances,
            ),
            Ability(
                id="kept-output",
                about="read later what was printed while nobody was attached",
                lack="drop what is printed while nobody is attached",
                instead="have the program wait for a message before it prints",
                has=lambda can: can.keeps_output,
            ),
            Ability(
                id="kept-end",
                about="learn later how an instance ended while nobody was attached",
                lack="keep nothing of an instance that has ended with nobody attached",
                instead="stay attached until it ends",
                has=lambda can: can.keeps_finished,
            ),
            Ability(
                id="gone-is-terminated",
                about="terminate an instance that is not there, which is a success",
                lack="refuse to terminate an instance that is not there",
                instead="take the error as good news",
                has=lambda can: can.terminates_unknown,
            ),
            Ability(
                id="answered-queries",
                about="be told that a query's subject is unknown",
                lack="never answer a query whose subject they do not know",
                instead="bound the waiting",
                has=lambda can: can.answers_every_query,
            ),
        )
    }
)
"""Every ability by its id."""


def lacks(can: Capabilities) -> tuple[Ability, ...]:
    """What a family of servers cannot: each says in words what these servers do instead."""
    return tuple(ability for ability in ABILITIES.values() if not ability.has(can))
