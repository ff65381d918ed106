"""Configurations whose content is sealed."""

from __future__ import annotations

import pytest

from dspyq.sealing.keyring import new_key_line
from tests.support.configuration import merged


@pytest.fixture
def keys_file(tmp_path):
    """A file with a key to seal and one to hash questions with."""
    path = tmp_path / "keys"
    path.touch(0o600)
    path.write_text(f"{new_key_line()}\n{new_key_line('index')}\n")
    return path


@pytest.fixture
def sealed(settings_file, keys_file):
    """Write a configuration file whose program is sealed: ``sealed("prefer")``, ``sealed(True, {...})``."""

    def write(encrypt=True, changes=None, **options):
        stated = {"encryption": {"keys_file": str(keys_file)}, "programs": {"qa": {"encrypt": encrypt}}}
        return settings_file(merged(changes or {}, stated), **options)

    return write
