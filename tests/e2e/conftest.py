"""Jobs under observation, once with each setting for the whole run: each observation takes seconds."""

import pytest

from tests.support.observation import Observation, observe


@pytest.fixture(scope="session")
def hidden(session_endpoint, tmp_path_factory) -> Observation:
    """What is seen with the default settings."""
    return observe(session_endpoint, tmp_path_factory.mktemp("hidden"), include_content=False)


@pytest.fixture(scope="session")
def shown(session_endpoint, tmp_path_factory) -> Observation:
    """What is seen with ``logging.include_content``."""
    return observe(session_endpoint, tmp_path_factory.mktemp("shown"), include_content=True)
