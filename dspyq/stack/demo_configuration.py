"""The demo's configuration file, for the embedded model or for one of the user's own."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template

from dspyq.core.private import open_private
from dspyq.stack.embedded.model import SLOTS, EmbeddedModel

#: Invented prices, so that the demo's costs are not all zero.
EMBEDDED_INPUT_USD_PER_MILLION_TOKENS = 0.1
EMBEDDED_OUTPUT_USD_PER_MILLION_TOKENS = 0.4
_EMBEDDED_PRICES = f"${EMBEDDED_INPUT_USD_PER_MILLION_TOKENS:.2f} and ${EMBEDDED_OUTPUT_USD_PER_MILLION_TOKENS:.2f}"

_DEFAULT_KEY = {"openai": "OPENAI_API_KEY"}
_REAL_MODEL_CONCURRENCY = 12


@dataclass(frozen=True)
class DemoModel:
    """The model that the demo calls.

    Attributes:
        table: Its ``[models.<name>]`` table.
        adapter: The DSPy adapter that prompts it.
        concurrency: Number of concurrent predictions.
        remarks: Notes to print beside its answers and costs.
    """

    table: dict[str, str | float | bool]
    adapter: str
    concurrency: int
    remarks: tuple[str, ...] = ()


def embedded_model(api_base: str) -> DemoModel:
    """Return the embedded model, served at a URL."""
    return DemoModel(
        table={
            "model": EmbeddedModel.name,
            "api_base": api_base,
            "max_tokens": 64,
            "structured_outputs": True,
            "input_usd_per_million_tokens": EMBEDDED_INPUT_USD_PER_MILLION_TOKENS,
            "output_usd_per_million_tokens": EMBEDDED_OUTPUT_USD_PER_MILLION_TOKENS,
        },
        adapter="dspyq.stack.embedded.short_prompt:ShortPromptAdapter",
        concurrency=SLOTS,
        remarks=(
            "The bundled model is there to show the machinery, not to be right.",
            f"Its prices are made up: {_EMBEDDED_PRICES} per million tokens in and out.",
        ),
    )


def real_model(model: str, api_base: str | None, api_key_env: str | None) -> DemoModel:
    """Return a model of the user's own.

    Args:
        model: Its name in DSPy.
        api_base: Its endpoint, whose prices are unknown and therefore stated as $0; None for the provider's own.
        api_key_env: The variable with its key; None for ``OPENAI_API_KEY`` with a model of OpenAI, if that is set.
    """
    default_key = _DEFAULT_KEY.get(model.partition("/")[0], "")
    if api_key_env is None and os.environ.get(default_key):
        api_key_env = default_key
    table: dict[str, str | float | bool] = {"model": model}
    if api_key_env:
        table["api_key_env"] = api_key_env
    if api_base:
        table |= {"api_base": api_base, "input_usd_per_million_tokens": 0, "output_usd_per_million_tokens": 0}
    remarks = (f"Costs are $0 because the prices of {api_base} are in no table.",) if api_base else ()
    return DemoModel(table, adapter="ChatAdapter", concurrency=_REAL_MODEL_CONCURRENCY, remarks=remarks)


def write_demo_configuration(folder: Path, model: DemoModel) -> Path:
    """Write the configuration file into a folder and return its path."""
    template = Template(files("dspyq.stack").joinpath("demo.toml").read_text(encoding="utf-8"))
    # A JSON string is a TOML string, but for what only control characters need.
    table = "\n".join(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in model.table.items())
    path = folder / "dspyq.toml"
    text = template.substitute(model=table, adapter=model.adapter, concurrency=model.concurrency)
    with open(path, "w", opener=open_private, encoding="utf-8") as file:
        file.write(text)
    return path
