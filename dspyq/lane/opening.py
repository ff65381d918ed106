"""Opening of the batch interface of a model's provider."""

from __future__ import annotations

from dspyq.config.models import Model
from dspyq.errors import ConfigurationError
from dspyq.guards.provider_access import ProviderAccess
from dspyq.lane.providers.openai import OpenAIBatches
from dspyq.lane.providers.protocol import BatchProvider


def open_provider(model: Model, access: ProviderAccess) -> BatchProvider:
    """Return the batch interface of a model.

    Raises:
        ConfigurationError: If its protocol is not known here.
    """
    if model.batch_protocol == "openai":
        return OpenAIBatches(access)
    raise ConfigurationError(f"models.{model.name}.batch: no client speaks {model.batch_protocol}")
