"""The other side of the conversation: what a Pie server sees and says, without I/O."""

from pie_proto.messages import Refusal
from pie_proto.server.connection import ServerConnection
from pie_proto.server.session import ServerSession

__all__ = ["Refusal", "ServerConnection", "ServerSession"]
