"""Channels that a process follows over the connection of its memory cache, beside that of invalidations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

#: Called with each message, and with None where messages may have been missed.
Receiver = Callable[[bytes | None], object]


class Follower:
    """A channel that is followed.

    Attributes:
        channel: Its name.
        receive: The function that its messages go to, in the thread of the connection.
        is_confirmed: Whether Redis has confirmed the subscription on the connection there is now.
    """

    def __init__(self, channel: str, receive: Receiver) -> None:
        self.channel = channel
        self.receive = receive
        self.is_confirmed = False


class Followers:
    """The followed channels of one connection. Any thread may add one; the connection's thread does the rest."""

    def __init__(self) -> None:
        self._by_channel: dict[bytes, Follower] = {}
        self._subscribed: set[str] = set()

    def add(self, channel: str, receive: Receiver) -> Follower:
        """Follow a channel from now on, and return it; it is subscribed within a moment."""
        follower = Follower(channel, receive)
        self._by_channel = {**self._by_channel, channel.encode(): follower}
        return follower

    def take_new(self) -> list[str]:
        """Return the channels to subscribe to on this connection, each once."""
        new = [each.channel for each in self._by_channel.values() if each.channel not in self._subscribed]
        self._subscribed.update(new)
        return new

    def hear(self, message: Mapping[str, Any]) -> bool:
        """Take a message of one of the channels; return False for any other message."""
        follower = self._by_channel.get(message["channel"] or b"")
        if follower is None:
            return False
        if message["type"] == "subscribe":
            follower.receive(None)
            follower.is_confirmed = True
        elif message["type"] == "message":
            follower.receive(message["data"])
        return True

    def lose(self) -> None:
        """Note that the connection ended."""
        self._subscribed.clear()
        for follower in self._by_channel.values():
            follower.is_confirmed = False
            follower.receive(None)
