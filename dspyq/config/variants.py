"""Variants of programs, as the configuration file states them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, JsonValue, PositiveInt, model_validator

from dspyq.config.forms import form
from dspyq.config.models import Model, Table, Temperature, Usd
from dspyq.config.signature import parse_signature

_IMPORT_PATH = r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$"
_ADAPTER = rf"^(Chat|JSON|XML)Adapter$|{_IMPORT_PATH}"
ImportPath = Annotated[
    str, Field(pattern=form(_IMPORT_PATH, "name the function with its module, as package.module:function"))
]
AdapterPath = Annotated[
    str, Field(pattern=form(_ADAPTER, "state ChatAdapter, JSONAdapter, XMLAdapter, or a class as package.module:Class"))
]
ModuleName = Literal["Predict", "ChainOfThought"]
IN_THE_CLASS = "stands beside signature alone: with class, state it in the class"


def _checked_class(path: str) -> str:
    if not re.match(_IMPORT_PATH, path):
        raise ValueError(f"name the class with its module, as package.module:Class, not {path!r}")
    return path


def _checked_signature(text: str) -> str:
    parse_signature(text)
    return text


ClassPath = Annotated[str, AfterValidator(_checked_class)]
SignatureText = Annotated[str, AfterValidator(_checked_signature)]


class Variant(Table):
    """One side of an experiment, ``[programs.<program>.variants.<name>]``.

    What it leaves out it has from its program, and from its model's table.

    Attributes:
        name: The table's name.
        queue: The Celery queue of its jobs, ``<program>.<variant>``.
        model: The model it runs on: the table it names, with the settings that the variant replaces.
        weight: The share of units it gets, 0 to 1.
        signature_text: Its fields, ``signature`` in the file: its program's inputs, and at least its outputs; its
            program's signature where left out.
        instructions: Its instructions; its program's where left out, DSPy's default for an empty text.
        module: Its DSPy module; its program's module or class where left out.
        class_path: Its class, ``class`` in the file; its program's class or module where left out.
        state: Its state file; its program's where left out, no state for an empty text.
        state_sha256: The hash of that file.
        adapter: Its adapter; its program's where left out.
        version: The version of its code; its program's where left out.
        temperature: Its sampling temperature; its model's where left out.
        max_tokens: The most tokens of one reply; its model's where left out.
        parameters: Request parameters beside its model's, or in place of those of the same name.
        daily_usd: The most its calls may cost in a day; no limit of its own where left out.
        monthly_usd: The most its calls may cost in a month; no limit of its own where left out.
    """

    name: str
    queue: str
    model: Model
    weight: Annotated[float, Field(ge=0, le=1)] = 1.0
    signature_text: Annotated[SignatureText | None, Field(alias="signature")] = None
    instructions: str | None = None
    module: ModuleName | None = None
    class_path: Annotated[ClassPath | None, Field(alias="class")] = None
    state: Path | None = None
    state_sha256: str | None = None
    adapter: AdapterPath | None = None
    version: str | None = None
    temperature: Temperature | None = None
    max_tokens: PositiveInt | None = None
    parameters: Annotated[dict[str, JsonValue], Field(default_factory=dict)]
    daily_usd: Usd | None = None
    monthly_usd: Usd | None = None

    @model_validator(mode="after")
    def _runs_on_its_own_form_of_the_model(self) -> Variant:
        stated = {name: getattr(self, name) for name in ("temperature", "max_tokens", "parameters")}
        stated = {name: value for name, value in stated.items() if name in self.model_fields_set and value is not None}
        if stated:
            program = self.queue.removesuffix(f".{self.name}")
            vars(self)["model"] = self.model.replaced(stated, f"programs.{program}.variants.{self.name}")
        return self

    @property
    def replaces(self) -> dict[str, Any]:
        """Settings of its program that it replaces, by the name of the field."""
        stated = {name: getattr(self, name) for name in _OF_PROGRAM if name in self.model_fields_set}
        return {name: value for name, value in stated.items() if value is not None or name in _MAY_BE_NONE}


#: Settings that a variant replaces of its program, and those of them that may be replaced by none.
_MAY_BE_NONE = ("state", "state_sha256")
_OF_PROGRAM = (*_MAY_BE_NONE, "signature_text", "instructions", "module", "class_path", "adapter", "version")
