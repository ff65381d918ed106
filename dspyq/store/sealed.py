"""The codec of a configuration with ``[encryption]``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspyq.errors import ConfigurationError
from dspyq.store.seal_keys import process_keys

try:
    from dspyq.sealing.codec import SealingCodec
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
    return SealingCodec(process_keys(), programs)
