"""``dspyq users``: the users of Redis of a deployment."""

from __future__ import annotations

from dspyq.config.settings import get_settings
from dspyq.console.output import JsonOption, print_json, print_text


def users(as_json: JsonOption = False) -> None:
    """Print the users of Redis with least rights, one for each part of this deployment, as an ACL file.

    Each has the password `change-me-<user>`, which you replace. Write the file again where a program is added, or after
    an upgrade. It reads the configuration, and no Redis.

    Example: `dspyq users > users.acl`
    """
    from dspyq.store.users import file_of, users_of

    rules = users_of(get_settings())
    print_json(rules) if as_json else print_text(file_of(rules).rstrip("\n"))
