"""Which family a server is of, told by which of several identifications it answers.

Each family drops the other's without a word, so all are sent back to back, the oldest vocabulary
first, each with an id of its own. There is no guess, no time-out and no second connection.
"""

from __future__ import annotations

from collections.abc import Sequence

from pie_proto import commands as c
from pie_proto.dialects import Dialect
from pie_proto.errors import LocalProtocolError, RemoteProtocolError
from pie_proto.messages import Answer, ServerMessage, Unknown

__all__ = ["Detection"]

# Said, behind a token, for the families that know none: any name will do where none is checked, and
# the families that check one have heard the token before.
_INTRODUCTION = c.Identify("internal")


class Detection:
    """The families that a server may be of, until it has said one thing that only one says."""

    def __init__(self, families: Sequence[Dialect]) -> None:
        self._families = tuple(families)
        self._ids: dict[Dialect, int] = {}
        self.found: Dialect | None = None
        """The family, once it is known."""

    def messages(
        self, command: c.Identify | c.AuthenticateWithToken, request_id: int
    ) -> list[bytes]:
        """``command`` in every vocabulary there is; the ids count up from ``request_id``.

        Raises `LocalProtocolError` if no family can do it.
        """
        objections = {family: family.objection(command) for family in self._families}
        if None not in objections.values():
            raise LocalProtocolError("; ".join(filter(None, objections.values())))
        # Families of one vocabulary say the same, and it is said once.
        messages: dict[bytes, bytes] = {}
        for family in sorted(self._families, key=lambda family: objections[family] is not None):
            said = command if objections[family] is None else _INTRODUCTION
            words = family.encode(said, 0)
            if words not in messages:
                messages[words] = family.encode(said, request_id + len(messages))
            self._ids[family] = request_id + list(messages).index(words)
        return list(messages.values())

    def read(self, payload: bytes | str) -> ServerMessage:
        """Read a message of a server that may be of any of these families.

        Sets ``found`` if it answers one of the identifications: the answer then carries the id of
        the first of them. Raises `RemoteProtocolError` for what none of them can read.
        """
        message: ServerMessage | None = None
        problem: RemoteProtocolError | None = None
        for family in self._families:
            try:
                read = (
                    family.decode(payload)
                    if isinstance(payload, bytes)
                    else family.decode_text(payload)
                )
            except RemoteProtocolError as exc:
                problem = problem or exc
                continue
            if (
                isinstance(read, Answer)
                and read.request_id == self._ids.get(family)
                and family.recognises(read)
            ):
                self.found = family
                return read._replace(request_id=min(self._ids.values()))
            if message is None or isinstance(message, Unknown):
                message = read
        if message is None:
            assert problem is not None  # noqa: S101 - there is at least one family
            raise problem
        if isinstance(message, Answer) and message.request_id == min(
            self._ids.values(), default=None
        ):
            raise RemoteProtocolError(
                "the server answered the word on who the client is in the words of another family"
            )
        return message
