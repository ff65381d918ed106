"""The users of ``dspyq/store/users.py`` on a test's own server, and the refusals that it logged."""

from __future__ import annotations

import re
from typing import Any

from dspyq.store.users import users
from tests.support.redis_server import RedisServer

#: Of the deployment whose users these are: another prefix than the tests' own.
PREFIX = "shop:"
QUEUES = ("qa.*", "night.*", "dspyq", "dspyq.batches")


def load_users(server: RedisServer, *, remote_control: bool = False) -> None:
    """Define all users on a server, as the file does; its default user stays the test's own."""
    for name, rules in users(PREFIX, QUEUES, remote_control=remote_control).items():
        server.cli("ACL", "SETUSER", name, "reset", "on", f">{password_of(name)}", *split(rules))


def load_file(server: RedisServer, text: str) -> None:
    """Define the users of an ACL file on a server; its default user stays the test's own."""
    for line in text.splitlines()[1:]:
        _, name, rules = line.split(maxsplit=2)
        assert server.cli("ACL", "SETUSER", name, "reset", *split(rules)) in {"OK", True}


def password_of(user: str) -> str:
    """Return a user's password."""
    return f"change-me-{user}"


def split(rules: str) -> list[str]:
    """Return the rules of a user, one by one."""
    return re.findall(r"\([^)]*\)|\S+", rules)


def url_of(server: RedisServer, user: str, password: str | None = None) -> str:
    """Return the address of a server for a user."""
    return f"redis://{user}:{password or password_of(user)}@127.0.0.1:{server.port}/0"


def env_of(server: RedisServer, user: str, **more: str) -> dict[str, str]:
    """Return the variables of a process that is this user."""
    return {
        "DSPYQ_REDIS_URL": url_of(server, user),
        "DSPYQ_KEY_PREFIX": PREFIX,
        "DSPYQ_WORKERS__IMPORTS": '["tests.support.user_tasks"]',
        "DSPYQ_WORKERS__REMOTE_CONTROL": "false",
        **more,
    }


def refusals(server: RedisServer) -> list[tuple[str, str, str, str]]:
    """Return who was refused what since the log was last emptied: user, context, reason and object."""
    log = [_table(entry) for entry in server.cli("ACL", "LOG", 100)]
    return [(each["username"], each["context"], each["reason"], each["object"]) for each in log]


def _table(entry: Any) -> dict[str, Any]:
    return entry if isinstance(entry, dict) else dict(zip(entry[::2], entry[1::2], strict=True))
