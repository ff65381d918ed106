"""The connection on which a process follows channels of what the fleet has once."""

from __future__ import annotations

from dspyq.cache.memory import CoherentCache, NoCache, close_cache, process_cache
from dspyq.config.settings import get_settings
from dspyq.core.runtime import per_runtime
from dspyq.store.keys import key_changes_channel
from dspyq.store.spines import process_spines


class _FleetChannels(CoherentCache):
    """A connection as a memory cache has it, which follows channels and keeps no answers."""

    @property
    def own_channel(self) -> str:
        """The channel that it listens to from its start."""
        return key_changes_channel()


@per_runtime(close=close_cache)
def _home_channels() -> CoherentCache:
    settings = get_settings()
    return _FleetChannels(settings.home_url, settings.cache)


def fleet_channels() -> CoherentCache | NoCache:
    """Return what follows channels at the Redis of what the fleet has once.

    That is the memory cache where that Redis is a spine too, and a connection of its own elsewhere. Without a memory
    cache nothing is followed.
    """
    settings = get_settings()
    if not settings.is_money_apart:
        return process_cache()
    if settings.cache.memory_entries == 0:
        return NoCache()
    spines = process_spines()
    for spine in spines.all if spines is not None else ():
        if spine.url == settings.home_url:
            with spine.runtime.active():
                return process_cache()
    return _home_channels()
