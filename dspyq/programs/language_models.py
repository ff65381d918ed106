"""Language models of the configuration."""

from __future__ import annotations

import inspect

import dspy

from dspyq.config.models import Model
from dspyq.errors import ConfigurationError
from dspyq.guards.model import Guards
from dspyq.programs.engine import AsyncEngine, Engine


def build_lm(model: Model, guards: Guards | None = None) -> dspy.LM:
    """Return the LM of a model's table.

    Args:
        model: The table.
        guards: The guards of its calls; none where left out.

    Raises:
        ConfigurationError: With every fault of the table that shows before a call.
    """
    taken = sorted(model.parameters.keys() & inspect.signature(dspy.LM.__init__).parameters.keys())
    if taken:
        raise ConfigurationError(
            f"{model.setting('parameters')}: {', '.join(taken)} cannot be set here; these are not request parameters"
        )
    engine = Engine(model, guards)
    try:
        lm = dspy.LM(
            model.model,
            engine=engine,
            async_engine=AsyncEngine(engine),
            cache=False,
            num_retries=0,
            max_tokens=model.max_tokens,
            temperature=model.temperature,
            **model.parameters,
        )
    except (dspy.LMError, TypeError, ValueError) as error:
        raise ConfigurationError(f"{model.table}: {error}") from error
    faults = [*engine.find_parameter_faults(lm.kwargs), *engine.find_price_faults()]
    if faults:
        raise ConfigurationError(faults)
    return lm
