"""A client for Pie servers, for asyncio and trio programs."""

from pie_anyio.client import PieClient
from pie_anyio.instance import Instance
from pie_anyio.keys import KeyFileWarning, ParsedPrivateKey
from pie_proto import (
    AttachFailed,
    AuthenticationError,
    ConnectFailed,
    ConnectionLost,
    Event,
    InstanceEnded,
    InstanceFailed,
    InstanceInfo,
    KeyFormatError,
    LaunchFailed,
    Limits,
    LocalProtocolError,
    PieError,
    QueryFailed,
    RemoteProtocolError,
    RequestFailed,
    RequestTimeout,
    Signer,
    TerminateFailed,
    UploadFailed,
)

__all__ = [
    "AttachFailed",
    "AuthenticationError",
    "ConnectFailed",
    "ConnectionLost",
    "Event",
    "Instance",
    "InstanceEnded",
    "InstanceFailed",
    "InstanceInfo",
    "KeyFileWarning",
    "KeyFormatError",
    "LaunchFailed",
    "Limits",
    "LocalProtocolError",
    "ParsedPrivateKey",
    "PieClient",
    "PieError",
    "QueryFailed",
    "RemoteProtocolError",
    "RequestFailed",
    "RequestTimeout",
    "Signer",
    "TerminateFailed",
    "UploadFailed",
]
