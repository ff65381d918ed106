"""Names of tenants, as the configuration file states them."""

from __future__ import annotations

from typing import Annotated

from pydantic import StringConstraints

from dspyq.config.forms import form

#: As ``dspyq.prediction.tenants`` checks those of calls.
TenantName = Annotated[
    str,
    StringConstraints(
        pattern=form(
            r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
            "use up to 64 letters, digits, ., - and _, with a letter or digit first",
        )
    ),
]
