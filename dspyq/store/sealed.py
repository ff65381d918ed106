"""The codec of a configuration with ``[encryption]``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspyq.core.runtime import per_runtime
from dspyq.errors import ConfigurationError
from dspyq.store.seal_keys import process_keys

try:
    from dspyq.sealing.codec import SealingCodec
    from dspyq.store.tenant_keys import TenantKeys
except ImportError as error:
    raise ConfigurationError("[encryption] needs cryptography: pip install 'dspyq[encryption]'") from error

if TYPE_CHECKING:
    from dspyq.config.schema import Settings


def make_codec(settings: Settings) -> SealingCodec:
    """Return the codec that seals for a configuration's programs.

    Raises:
        ConfigurationError: If its keys cannot be read.
    """
    programs = {name: program.encrypt for name, program in settings.programs.items()}
    return SealingCodec(process_keys(), programs, process_tenant_keys())


@per_runtime(is_kept=True)
def process_tenant_keys() -> TenantKeys:
    """Return the keys of tenants.

    Raises:
        ConfigurationError: If the deployment's own keys cannot be read.
    """
    return TenantKeys(process_keys())
