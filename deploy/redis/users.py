"""Writes users.acl beside it: the users of Redis of config/dspyq.toml and config/demo.toml together.

`dspyq users` prints those of another deployment. Replace the passwords before you use either.
"""

from __future__ import annotations

from pathlib import Path

from dspyq.config.settings import load_settings
from dspyq.store.users import file_of, queues_of, users

_FOLDER = Path(__file__).parent
_REPOSITORY = _FOLDER.parents[1]


def text() -> str:
    """Return the file."""
    found = [load_settings(_REPOSITORY / "config" / name) for name in ("dspyq.toml", "demo.toml")]
    return file_of(users("", dict.fromkeys(name for settings in found for name in queues_of(settings))))


if __name__ == "__main__":
    (_FOLDER / "users.acl").write_text(text())
