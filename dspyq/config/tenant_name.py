"""Names of tenants, as the configuration file states them."""

from __future__ import annotations

from typing import Annotated

from pydantic import StringConstraints

#: As ``dspyq.prediction.tenants`` checks those of calls.
TenantName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
