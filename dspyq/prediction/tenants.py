"""Tenants: customers, teams or applications that share programs, each with limits, books and answers of its own."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from dspyq.errors import InvalidOption

if TYPE_CHECKING:
    from dspyq.config.programs import Program

#: Safe in keys of Redis, in the fields of its hashes, in patterns and on a command line.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

#: In place of a tenant's name, for a call of none where tenants share answers.
NO_TENANT = "-"


def check_tenant(name: object) -> str:
    """Return a tenant's name; it becomes part of keys.

    Raises:
        InvalidOption: If it is none. An empty name is refused too: by mistake it would share the answers of calls
            without a tenant, at the expense of no tenant.
    """
    if type(name) is not str or not _NAME.fullmatch(name):
        raise InvalidOption(
            "a tenant's name has 1 to 64 letters, digits, dots, dashes and underscores, and begins with a letter or a "
            "digit; leave tenant out for a call of none"
        )
    return name


def owner_of_answer(program: Program, tenant: str) -> str:
    """Return the tenant whose calls alone are served an answer; empty where the program shares its answers."""
    return tenant if program.share == "tenant" else ""
