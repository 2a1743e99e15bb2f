"""Who the client has said it is, and how far a server has come in believing it."""

from __future__ import annotations

from typing import Final, TypeAlias

from pie_proto import commands as c
from pie_proto import events as e
from pie_proto.errors import LocalProtocolError, RemoteProtocolError
from pie_proto.states import AUTHENTICATION, AuthenticationInput, AuthenticationState, next_state

__all__ = ["AUTHENTICATING", "ClientAuthentication", "Identity"]

Identity: TypeAlias = c.Identify | c.AuthenticateWithToken

AUTHENTICATING: Final = (c.Identify, c.AnswerChallenge, c.AuthenticateWithToken)
"""The commands that a server gives its verdict on."""

_INPUTS: Final[dict[type[c.Command], AuthenticationInput]] = {
    c.Identify: AuthenticationInput.IDENTIFY,
    c.AuthenticateWithToken: AuthenticationInput.TOKEN,
    c.AnswerChallenge: AuthenticationInput.ANSWER,
}

_OUTCOMES: Final[dict[type[e.Outcome], AuthenticationInput]] = {
    e.Authenticated: AuthenticationInput.ACCEPTED,
    e.ChallengeReceived: AuthenticationInput.CHALLENGED,
    e.Failed: AuthenticationInput.REFUSED,
}


class ClientAuthentication:
    """The client's side of one authentication."""

    def __init__(self) -> None:
        self._identity: Identity | None = None
        self.state = AuthenticationState.UNAUTHENTICATED
        self.method: e.Authentication | None = None
        """How the server came to accept the user; ``None`` before it has."""

    def check(self, command: c.Command) -> None:
        """Raise `LocalProtocolError` unless ``command`` may be sent now."""
        happened = _INPUTS.get(type(command), AuthenticationInput.COMMAND)
        if next_state(AUTHENTICATION, self.state, happened) is None:
            raise LocalProtocolError(
                f"{type(command).__name__} cannot be sent while {self.state.value}"
                + ("" if happened is not AuthenticationInput.COMMAND else ": authenticate first")
            )

    def said(self, command: c.Command) -> None:
        """Note that a command was sent, which `check` has let pass."""
        if not isinstance(command, AUTHENTICATING):
            return
        if self.state is AuthenticationState.AUTHENTICATED:
            # Servers say yes to whatever is said again, and change nothing.
            return
        if not isinstance(command, c.AnswerChallenge):
            self._identity = command
        self._follow(_INPUTS[type(command)], command)

    def judged(self, request_id: int, command: c.Command, outcome: e.Outcome) -> e.Outcome:
        """Follow the verdict on a command that is one of `AUTHENTICATING`; what it comes to here.

        Raises `RemoteProtocolError` for one that cannot be given now.
        """
        was_told = e.Authenticated(request_id, e.Authentication.ALREADY)
        if outcome == was_told and self.state is not AuthenticationState.AUTHENTICATED:
            # Nothing was proved here: who the user is, the opening request has said.
            outcome = e.Authenticated(request_id, e.Authentication.ASSERTED)
        self._follow(_OUTCOMES.get(type(outcome), AuthenticationInput.REFUSED), outcome)
        if isinstance(outcome, e.Authenticated) and self.method is None:
            self.method = outcome.method
        if outcome == was_told and not self._is_same(command):
            # A connection has one user: told of another, a server changes nothing and says yes.
            return e.Failed(request_id, command, f"Already authenticated ({self._other_user()})")
        return outcome

    def _follow(self, happened: AuthenticationInput, what: c.Command | e.Outcome) -> None:
        state = next_state(AUTHENTICATION, self.state, happened)
        if state is None:
            raise RemoteProtocolError(
                f"the server sent {type(what).__name__} while {self.state.value}"
            )
        self.state = state

    def _is_same(self, command: c.Command) -> bool:
        # The server checks no second token, so which one it is says nothing.
        identity = self._identity
        return command == identity or (type(command) is type(identity) is c.AuthenticateWithToken)

    def _other_user(self) -> str:
        match self._identity:
            case c.Identify(username):
                whom = f"as {username!r}"
            case _:
                whom = "with a token"
        return f"{whom}: for another user, open another connection"
