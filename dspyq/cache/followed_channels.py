"""Channels that a process follows over the connection of its memory cache, beside that of invalidations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

#: Called with each message, and with None where messages may have been missed.
Receiver = Callable[[bytes | None], object]


class FollowedChannel:
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


class FollowedChannels:
    """The followed channels of one connection. Any thread may add one; the connection's thread does the rest."""

    def __init__(self) -> None:
        self._by_channel: dict[bytes, FollowedChannel] = {}
        self._subscribed: set[str] = set()

    def add(self, channel: str, receive: Receiver) -> FollowedChannel:
        """Follow a channel from now on, and return it; it is subscribed within a moment."""
        followed = FollowedChannel(channel, receive)
        self._by_channel = {**self._by_channel, channel.encode(): followed}
        return followed

    def take_new(self) -> list[str]:
        """Return the channels to subscribe to on this connection, each once."""
        new = [each.channel for each in self._by_channel.values() if each.channel not in self._subscribed]
        self._subscribed.update(new)
        return new

    def hear(self, message: Mapping[str, Any]) -> bool:
        """Take a message of one of the channels; return False for any other message."""
        followed = self._by_channel.get(message["channel"] or b"")
        if followed is None:
            return False
        if message["type"] == "subscribe":
            followed.receive(None)
            followed.is_confirmed = True
        elif message["type"] == "message":
            followed.receive(message["data"])
        return True

    def lose(self) -> None:
        """Note that the connection ended."""
        self._subscribed.clear()
        for followed in self._by_channel.values():
            followed.is_confirmed = False
            followed.receive(None)
