"""The interfaces ``inferlet:core/*`` as far as they need no model: messages, blobs, a store.

What needs a model can be imported, and says that there is none when it is called. ``get-model``
finds none, so that a program can end with its own words.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Final, NoReturn

from pie_anyio.server.host import (
    Host,
    HostError,
    HostFunction,
    HostFunctions,
    LimitExceeded,
    Pollable,
    Receipt,
    Resource,
)
from pie_proto.events import Event

__all__ = ["FUNCTIONS", "Shared", "Subscription", "stand_in"]

# The interfaces below are those of release 0.2.
_VERSION: Final = "0.2.0"


class Shared:
    """What all instances of one server share: the key-value store and the topics. Thread-safe."""

    def __init__(self, *, store_bytes: int) -> None:
        self._lock = threading.Lock()
        self._store: dict[str, str] = {}
        self._store_bytes = 0
        self._store_limit = store_bytes
        self._topics: dict[str, set[Subscription]] = {}

    def get(self, key: str) -> str | None:
        """The value of ``key``, if there is one."""
        return self._store.get(key)

    def keys(self) -> list[str]:
        """All keys, sorted."""
        with self._lock:
            return sorted(self._store)

    def set(self, key: str, value: str) -> bool:
        """Keep ``value`` under ``key``; False if the store would grow over its limit."""
        with self._lock:
            size = self._store_bytes - self._size(key) + len(key) + len(value)
            if size > self._store_limit:
                return False
            self._store[key] = value
            self._store_bytes = size
            return True

    def delete(self, key: str) -> None:
        """Forget ``key``, if it is there."""
        with self._lock:
            self._store_bytes -= self._size(key)
            self._store.pop(key, None)

    def _size(self, key: str) -> int:
        value = self._store.get(key)
        return 0 if value is None else len(key) + len(value)

    def join(self, subscription: Subscription) -> None:
        """From now on what is said on the topic reaches ``subscription``."""
        with self._lock:
            self._topics.setdefault(subscription.topic, set()).add(subscription)

    def leave(self, subscription: Subscription) -> None:
        """Undo `join`."""
        with self._lock:
            members = self._topics.get(subscription.topic, set())
            members.discard(subscription)
            if not members:
                self._topics.pop(subscription.topic, None)

    def broadcast(self, topic: str, message: str) -> None:
        """Give ``message`` to all who are subscribed to ``topic``."""
        with self._lock:
            members = list(self._topics.get(topic, ()))
        for member in members:
            member.put(message)

    def topics(self) -> list[str]:
        """The topics that somebody is subscribed to."""
        with self._lock:
            return list(self._topics)

    def forget(self, host: Host) -> None:
        """Undo every `join` of an instance that is over."""
        with self._lock:
            for topic, members in list(self._topics.items()):
                members -= {member for member in members if member.host is host}
                if not members:
                    del self._topics[topic]


def _shared(host: Host) -> Shared:
    assert isinstance(host.shared, Shared)  # noqa: S101 - for the type checker
    return host.shared


class Subscription(Resource):
    """The messages of one topic, for one instance."""

    __slots__ = ("_messages", "host", "topic")

    def __init__(self, host: Host, topic: str) -> None:
        self.host = host
        self.topic = topic
        self._messages: deque[str] = deque()

    def put(self, message: str) -> None:
        """Add a message, which wakes the instance; thread-safe."""
        with self.host.condition:
            if self.host.outcome is None:
                self._messages.append(message)
                self.host.hold(len(message))
                self.host.condition.notify_all()

    def pollable(self) -> Pollable:
        """Ready while there is a message."""
        return Pollable(lambda: bool(self._messages))

    def get(self) -> str | None:
        """The next message, if there is one."""
        with self.host.condition:
            if not self._messages:
                return None
            message = self._messages.popleft()
            self.host.release(len(message))
            return message

    def close(self) -> None:
        """Leave the topic."""
        _shared(self.host).leave(self)
        while self.get() is not None:
            pass


class _Blob(Resource):
    """Bytes that an instance has a handle to."""

    __slots__ = ("_host", "data")

    def __init__(self, host: Host, data: bytes) -> None:
        host.hold(len(data))
        self._host = host
        self.data = data

    def close(self) -> None:
        self._host.release(len(self.data))
        self.data = b""


class _Answer(Resource):
    """A result that has been there all along."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


# -------------------------------------------------------------------------- inferlet:core/runtime


def _get_version(_host: Host) -> str:
    return _VERSION


def _get_instance_id(host: Host) -> str:
    return host.instance_id


def _get_arguments(host: Host) -> list[str]:
    return list(host.arguments)


def _set_return(host: Host, value: str) -> None:
    host.return_value = value


def _get_model(_host: Host, _name: str) -> None:
    return None


def _get_all_models(_host: Host) -> list[str]:
    return []


def _get_all_models_with_traits(_host: Host, _traits: list[str]) -> list[str]:
    return []


def _debug_query(_host: Host, query: str) -> _Answer:
    return _Answer(f"the embedded server has no answer to {query!r}")


# -------------------------------------------------------------------------- inferlet:core/message


def _send(host: Host, message: str) -> None:
    host.emit(Event.Message, message)


def _receive(host: Host) -> Receipt[str]:
    return host.messages.receive()


def _send_blob(host: Host, blob: _Blob) -> None:
    host.emit(Event.Blob, blob.data)


def _receive_blob(host: Host) -> Receipt[bytes]:
    return host.blobs.receive()


def _broadcast(host: Host, topic: str, message: str) -> None:
    _shared(host).broadcast(topic, message)


def _subscribe(host: Host, topic: str) -> Subscription:
    subscription = Subscription(host, topic)
    _shared(host).join(subscription)
    return subscription


def _unsubscribe(_host: Host, subscription: Subscription) -> None:
    subscription.close()


def _receipt_pollable(_host: Host, receipt: Receipt[object]) -> Pollable:
    return receipt.pollable()


def _receipt_get(_host: Host, receipt: Receipt[str]) -> str | None:
    return receipt.get()


def _subscription_pollable(_host: Host, subscription: Subscription) -> Pollable:
    return subscription.pollable()


def _subscription_get(_host: Host, subscription: Subscription) -> str | None:
    return subscription.get()


# --------------------------------------------------------------------------- inferlet:core/common


def _new_blob(host: Host, data: bytes) -> _Blob:
    blob = _Blob(host, data)
    host.check()
    return blob


def _blob_read(_host: Host, blob: _Blob, offset: int, count: int) -> bytes:
    return blob.data[offset : offset + count]


def _blob_size(_host: Host, blob: _Blob) -> int:
    return len(blob.data)


def _blob_get(host: Host, receipt: Receipt[bytes]) -> _Blob | None:
    data = receipt.get()
    return None if data is None else _new_blob(host, data)


def _answer_pollable(_host: Host, _answer: _Answer) -> Pollable:
    return Pollable()


def _answer_get(_host: Host, answer: _Answer) -> str:
    return answer.text


# ------------------------------------------------------------------------------ inferlet:core/kvs


def _store_get(host: Host, key: str) -> str | None:
    return _shared(host).get(key)


def _store_set(host: Host, key: str, value: str) -> None:
    if not _shared(host).set(key, value):
        raise LimitExceeded("the store of this server is full (limit store_bytes)")


def _store_delete(host: Host, key: str) -> None:
    _shared(host).delete(key)


def _store_exists(host: Host, key: str) -> bool:
    return _shared(host).get(key) is not None


def _store_list_keys(host: Host) -> list[str]:
    return _shared(host).keys()


FUNCTIONS: Final[HostFunctions] = {
    "inferlet:core/runtime#get-version": _get_version,
    "inferlet:core/runtime#get-instance-id": _get_instance_id,
    "inferlet:core/runtime#get-arguments": _get_arguments,
    "inferlet:core/runtime#set-return": _set_return,
    "inferlet:core/runtime#get-model": _get_model,
    "inferlet:core/runtime#get-all-models": _get_all_models,
    "inferlet:core/runtime#get-all-models-with-traits": _get_all_models_with_traits,
    "inferlet:core/runtime#debug-query": _debug_query,
    "inferlet:core/message#send": _send,
    "inferlet:core/message#receive": _receive,
    "inferlet:core/message#send-blob": _send_blob,
    "inferlet:core/message#receive-blob": _receive_blob,
    "inferlet:core/message#broadcast": _broadcast,
    "inferlet:core/message#subscribe": _subscribe,
    "inferlet:core/message#[method]receive-result.pollable": _receipt_pollable,
    "inferlet:core/message#[method]receive-result.get": _receipt_get,
    "inferlet:core/message#[method]subscription.pollable": _subscription_pollable,
    "inferlet:core/message#[method]subscription.get": _subscription_get,
    "inferlet:core/message#[method]subscription.unsubscribe": _unsubscribe,
    "inferlet:core/common#[constructor]blob": _new_blob,
    "inferlet:core/common#[method]blob.read": _blob_read,
    "inferlet:core/common#[method]blob.size": _blob_size,
    "inferlet:core/common#[method]blob-result.pollable": _receipt_pollable,
    "inferlet:core/common#[method]blob-result.get": _blob_get,
    "inferlet:core/common#[method]debug-query-result.pollable": _answer_pollable,
    "inferlet:core/common#[method]debug-query-result.get": _answer_get,
    "inferlet:core/kvs#store-get": _store_get,
    "inferlet:core/kvs#store-set": _store_set,
    "inferlet:core/kvs#store-delete": _store_delete,
    "inferlet:core/kvs#store-exists": _store_exists,
    "inferlet:core/kvs#store-list-keys": _store_list_keys,
}
"""What functions of the server's own interfaces there are."""


def stand_in(name: str) -> HostFunction | None:
    """For a function that needs a model: one that says so. ``None`` if it is not the server's."""
    if not name.startswith("inferlet:"):
        return None

    def needs_model(_host: Host) -> NoReturn:
        raise HostError("it needs a model, and the embedded server has none")

    return needs_model
