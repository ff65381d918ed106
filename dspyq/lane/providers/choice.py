"""The batch interface of a model's provider."""

from __future__ import annotations

from collections.abc import Callable

from dspyq.config.lanes import BATCH_DIALECTS
from dspyq.errors import ConfigurationError
from dspyq.guards.provider_access import ProviderAccess
from dspyq.lane.providers.anthropic import AnthropicBatches
from dspyq.lane.providers.gemini import GeminiBatches
from dspyq.lane.providers.http import ProviderHttp
from dspyq.lane.providers.mistral import MistralBatches, is_mistral
from dspyq.lane.providers.openai import OpenAIBatches
from dspyq.lane.providers.protocol import BatchProvider

#: By the protocol that ``[models.x] batch`` names.
_PROTOCOLS: dict[str, type[OpenAIBatches | AnthropicBatches | GeminiBatches]] = {
    "openai": OpenAIBatches,
    "anthropic": AnthropicBatches,
    "gemini": GeminiBatches,
}


def provider_for(
    protocol: str, access: ProviderAccess, renew: Callable[[], ProviderAccess] | None = None
) -> BatchProvider:
    """Return the batch interface of a protocol.

    Args:
        protocol: ``openai``, ``anthropic`` or ``gemini``. At Mistral's own endpoint, ``openai`` has Mistral's jobs.
        access: The access of live calls.
        renew: Returns it anew for each request, where credentials expire while a batch runs.

    Raises:
        ConfigurationError: If there is no such protocol, or live calls of the model have another form.
    """
    kind = _PROTOCOLS.get(protocol)
    if kind is None:
        raise ConfigurationError(f"{access.setting}.batch: {protocol} is none of {', '.join(_PROTOCOLS)}")
    if access.dialect != BATCH_DIALECTS[protocol]:
        raise ConfigurationError(
            f"{access.setting}.batch: {protocol} takes requests of {BATCH_DIALECTS[protocol]}, not {access.dialect}"
        )
    http = ProviderHttp(access, renew)
    return MistralBatches(http) if kind is OpenAIBatches and is_mistral(access) else kind(http)
