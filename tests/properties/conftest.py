"""The run's Redis, as one for everything and as two."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.properties.delivery_model import Asked
from tests.properties.delivery_world import World
from tests.support.redis_server import RedisServer


@pytest.fixture
def worlds(session_redis_server: RedisServer) -> Iterator[dict[bool, World]]:
    """By whether answers live with the jobs."""
    made = {is_one: World(session_redis_server, Asked("").queue, is_one_redis=is_one) for is_one in (True, False)}
    session_redis_server.flush()
    yield made
    for world in made.values():
        world.close()
    session_redis_server.flush()
