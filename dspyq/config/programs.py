"""Programs and their variants, as the configuration file states them.

All are frozen. A variant replaces settings of its program and of its model. ``Program.served`` and ``Variant.model``
hold what comes of that, merged once; nothing else reads what a variant states. A variant's fingerprint, which
identifies its answers, is computed from configuration alone, so producers without DSPy compute the same as workers.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from blake3 import blake3
from pydantic import (
    ConfigDict,
    Field,
    JsonValue,
    PositiveFloat,
    PositiveInt,
    PrivateAttr,
    ValidationError,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from dspyq.config.chat import Chat, ConversationFields, find_conversation_fields
from dspyq.config.experiments import Experiment
from dspyq.config.forms import StreamedField
from dspyq.config.models import Model, Name, Table, Usd
from dspyq.config.signature import Signature, describe_misfits, parse_signature
from dspyq.config.variants import (
    IN_THE_CLASS,
    AdapterPath,
    ClassPath,
    ImportPath,
    ModuleName,
    SignatureText,
    Variant,
)
from dspyq.errors import ConfigurationError

#: ``dspy_version`` where the configuration states none; another value would change all fingerprints.
DEFAULT_DSPY_VERSION = "3.4.1"


@dataclass(frozen=True, eq=False)
class _Origin:
    """Origin of a program as one of its variants is served.

    Attributes:
        program: The program as the file states it.
        variant: The variant.
    """

    program: Program
    variant: Variant


class FieldSettings(Table):
    """A field of a signature, ``[programs.<program>.fields.<field>]``.

    Attributes:
        description: Its description in the prompt; the field's name alone where left out.
    """

    description: Annotated[str, Field(min_length=1)]


#: What ``dspy.Predict`` takes beside a signature's inputs; an input of such a name would get lost.
_TAKEN_BY_DSPY = frozenset({"self", "signature", "demos", "config", "lm", "new_signature", "completions"})
#: An output that ``dspy.ChainOfThought`` adds, in place of an input of that name.
_REASONING = "reasoning"


class Program(Table):
    """A DSPy program, ``[programs.<name>]``.

    Attributes:
        name: The table's name.
        signature_text: Its fields in DSPy's notation, ``signature`` in the file; workers derive that of a class where
            it is left out, producers need it stated.
        fields: Descriptions of its fields in the prompt, by their names; of fields of its variants' signatures too.
        instructions: The instructions in the prompt; DSPy's default where left out.
        module: The DSPy module that serves a signature.
        class_path: ``package.module:Class`` of a program of your own, ``class`` in the file.
        state: The JSON file ``program.save`` wrote, relative to the configuration file.
        state_sha256: The hash of that file.
        allow_unchanged_state: Whether a file is served that changes nothing about the program.
        adapter: How prompts are written and replies parsed: a DSPy adapter or ``package.module:Class``.
        dspy_version: The DSPy that computes its answers, ``dspy_version`` of the whole configuration.
        version: The version of its code. Change it when the code answers differently: older cached answers end.
        salt: What units are hashed with; programs of one salt and weights split their units alike.
        cache_ttl_seconds: How long an answer is served from the cache; 0 serves none.
        share: Whose calls are served an answer to a tenant's question: that ``tenant`` alone, or ``everyone``.
        encrypt: Whether its content is sealed: ``"prefer"`` seals and reads plain text too, ``true`` refuses that.
        cache_truncated: Whether that holds too for an answer that was cut off at ``max_tokens``.
        max_input_bytes: The most bytes of one prediction's inputs, as JSON.
        max_body_bytes: The most bytes of a request's body at the HTTP door; ``serve.max_body_bytes`` where left out.
        deadline_seconds: The most a prediction may take while it runs, waiting in queues left out; no limit where left
            out. Model calls and waits end with it; a tool that hangs is not interrupted.
        when_unavailable: What becomes of a job that a breaker, a rate limit or a budget refuses: it waits, it fails, or
            it gets the fallback.
        fallback_outputs: The outputs of a fallback.
        fallback_variant: The variant whose answer is a fallback.
        daily_usd: The most its calls may cost in a day; no limit of its own where left out.
        monthly_usd: The most its calls may cost in a month; no limit of its own where left out.
        scorers: ``package.module:function`` of each function that scores its answers: it takes inputs and outputs, each
            a dict, and returns a number. It runs after the answer is sent; its failures are only counted.
        categorize: ``package.module:function`` that takes the inputs and returns the kind of a question, a short name;
            left out, that is ``short``, ``medium`` or ``long``.
        models: What parts of it run on in place of the variant's model, by the path of a predictor, or of an attribute
            that holds a model, the adapter's too.
        stream: Which texts are streamed to callers with ``stream=True``: its outputs of type ``str``, none, or those
            of a list of ``predictor.field`` or ``field``, such as ``predict.reasoning``.
        chat: Its fields as a conversation, for OpenAI's clients.
        lanes: Lanes for which its code is fit beside the live one. Left out, ``provider`` for a signature; a class must
            state it, since its code, tools included, runs again for each call that had to wait.
        variants: The sides of the experiment, in the file's order; the first is the control.
        experiment: The comparison of variants on live traffic.
    """

    model_config = ConfigDict(populate_by_name=True)

    name: str
    signature_text: Annotated[SignatureText | None, Field(alias="signature")] = None
    fields: Annotated[dict[str, FieldSettings], Field(default_factory=dict)]
    instructions: str | None = None
    module: ModuleName = "Predict"
    class_path: Annotated[ClassPath | None, Field(alias="class")] = None
    state: Path | None = None
    state_sha256: str | None = None
    allow_unchanged_state: bool = False
    adapter: AdapterPath = "ChatAdapter"
    dspy_version: str = DEFAULT_DSPY_VERSION
    version: str = "1"
    salt: str = ""
    cache_ttl_seconds: Annotated[int, Field(ge=0)] = 86_400
    share: Literal["tenant", "everyone"] = "tenant"
    encrypt: Literal["prefer"] | bool = False
    cache_truncated: bool = False
    max_input_bytes: PositiveInt = 4 * 1024 * 1024
    max_body_bytes: PositiveInt | None = None
    deadline_seconds: PositiveFloat | None = None
    when_unavailable: Literal["wait", "fail", "fallback"] = "wait"
    fallback_outputs: dict[str, JsonValue] | None = None
    fallback_variant: str | None = None
    daily_usd: Usd | None = None
    monthly_usd: Usd | None = None
    scorers: tuple[ImportPath, ...] = ()
    categorize: ImportPath | None = None
    models: Annotated[dict[str, Model], Field(default_factory=dict)]
    stream: bool | tuple[StreamedField, ...] = True
    chat: Chat | None = None
    lanes: tuple[Literal["provider"], ...] | None = None
    variants: Annotated[dict[Name, Variant], Field(min_length=1)]
    experiment: Experiment | None = None
    _origin: _Origin | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _has_a_signature_that_serves(self) -> Program:
        if self.signature_text is not None:
            self._check(self.signature)
        elif self.class_path is None:
            raise ValueError("signature: missing")
        return self

    @model_validator(mode="after")
    def _states_once_what_the_class_is(self) -> Program:
        for name in ("module", "instructions", "fields"):
            if self.class_path is not None and name in self.model_fields_set:
                raise ValueError(f"{name} {IN_THE_CLASS}")
        return self

    @model_validator(mode="after")
    def _has_the_fallback_it_names(self) -> Program:
        stated = [name for name in ("fallback_outputs", "fallback_variant") if getattr(self, name) is not None]
        if self.when_unavailable == "fallback" and len(stated) != 1:
            raise ValueError('when_unavailable = "fallback" needs either fallback_outputs or fallback_variant')
        if self.when_unavailable != "fallback" and stated:
            raise ValueError(f'{stated[0]} is used with when_unavailable = "fallback" alone')
        if self.fallback_variant is not None and self.fallback_variant not in self.variants:
            raise ValueError(f"fallback_variant: there is no variant {self.fallback_variant!r}")
        return self

    @model_validator(mode="after")
    def _goes_with_its_variants(self) -> Program:
        details = [
            InitErrorDetails(type=PydanticCustomError("value_error", "{text}", {"text": text}), loc=place, input=None)
            for place, text in (*self._variant_faults(), *self._experiment_faults())
        ]
        if details:
            raise ValidationError.from_exception_data("variants", details)
        return self

    def _check(self, signature: Signature) -> None:
        """Refuse names that get lost, and settings that name other fields than the signature."""
        self._check_inputs(signature)
        own = [parse_signature(each.signature_text) for each in self.variants.values() if each.signature_text]
        names = [field.name for one in (signature, *own) for field in (*one.inputs, *one.outputs)]
        if unknown := [name for name in self.fields if name not in names]:
            known = ", ".join(dict.fromkeys(names))
            raise ValueError(f"fields.{unknown[0]}: the signature has no such field; it has {known}")
        if self.fallback_outputs is not None:
            expected = sorted(field.name for field in signature.outputs)
            if sorted(self.fallback_outputs) != expected:
                raise ValueError(f"fallback_outputs: state exactly the outputs {', '.join(expected)}")
        if self.chat is not None:
            find_conversation_fields(signature, self.chat)

    def _check_inputs(self, signature: Signature) -> None:
        taken = _TAKEN_BY_DSPY if self.class_path is None else frozenset({"self"})
        if self.class_path is None and self.module == "ChainOfThought":
            taken |= {_REASONING}
        if lost := [field.name for field in signature.inputs if field.name in taken]:
            raise ValueError(f"signature: DSPy itself uses the input names {', '.join(lost)}; choose others")

    def _variant_faults(self) -> Iterator[tuple[tuple[str, str, str], str]]:
        """Yield each setting of a variant that it cannot have: its place in this table, and the fault."""
        for name, variant in self.variants.items():
            served, stated = self.served[name], variant.replaces
            if served.class_path is not None:
                for key in ("module", "instructions"):
                    if key in stated:
                        yield ("variants", name, key), IN_THE_CLASS
            if served is self or self.unstated:
                continue
            if misfits := describe_misfits(self.signature, served.signature):
                yield ("variants", name, "signature"), f"{misfits}: keep its program's inputs, and add outputs alone"
            try:
                served._check_inputs(self.signature)  # noqa: SLF001 - its own class's
            except ValueError as error:
                yield ("variants", name, "module"), str(error).removeprefix("signature: ")

    def _experiment_faults(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Yield each name in the experiment's table that the program does not have: its place, and the fault."""
        if self.experiment is None:
            return
        for arm in self.experiment.arms:
            if arm not in self.variants:
                yield ("experiment", "arms"), f"{self.name} has no variant {arm!r}; it has {', '.join(self.variants)}"
        for name, score in self.experiment.scores.items():
            if score.scorer not in self.scorers:
                yield ("experiment", "scores", name, "scorer"), f"{score.scorer!r} is none of the program's scorers"

    @functools.cached_property
    def served(self) -> dict[str, Program]:
        """The program as each variant serves it: with the settings that the variant replaces."""
        if self._origin is not None:
            return self._origin.program.served
        return {name: self._merged(variant) for name, variant in self.variants.items()}

    def as_served(self, variant: str | None) -> Program:
        """Return the program as a variant serves it; as the file states it for none, or one that it does not have."""
        return self if variant is None else self.served.get(variant, self)

    def _merged(self, variant: Variant) -> Program:
        stated = variant.replaces
        if "class_path" in stated:
            stated = {"module": "Predict", "instructions": None, "fields": {}, **stated}
        elif "module" in stated:
            stated = {"class_path": None, **stated}
        if all(getattr(self, name) == value for name, value in stated.items()):
            return self
        served = self.model_copy(update=stated)
        for name in ("served", "signature", "fingerprints"):
            vars(served).pop(name, None)  # those of this program
        served._origin = _Origin(self, variant)  # noqa: SLF001 - its own class's
        return served

    def replaces(self, key: str) -> bool:
        """Return True for a program as a variant serves it, if the variant states this key of the file."""
        if self._origin is None:
            return False
        fields = type(self._origin.variant).model_fields
        return any(key == (fields[name].alias or name) for name in self._origin.variant.replaces)

    def setting(self, *keys: str) -> str:
        """Return the place in the file of the first of these keys that the variant states, else of the program's."""
        own = [key for key in keys if self.replaces(key)]
        table = f"programs.{self.name}.variants.{self.variant_served}" if own else f"programs.{self.name}"
        return f"{table}.{[*own, *keys][0]}"

    @property
    def has_one_structure(self) -> bool:
        """True if all variants serve the same class or module."""
        return len({(each.class_path, each.module) for each in self.served.values()}) == 1

    @property
    def states_signature(self) -> bool:
        """True if its signature is not derived from its class: the file states it, or it is that of another class."""
        is_of_another = self._origin is not None and self._origin.program.class_path != self.class_path
        return self.signature_text is not None or is_of_another

    @property
    def variant_served(self) -> str | None:
        """The variant that replaces settings of the program; None for the program as the file states it."""
        return self._origin.variant.name if self._origin else None

    @functools.cached_property
    def signature(self) -> Signature:
        """The program's fields.

        Raises:
            ConfigurationError: If the file states none and this process has not derived them from the class.
        """
        if self.unstated:
            raise ConfigurationError(self.unstated)
        if self._origin is not None and self.signature_text is None:
            return self._origin.program.signature
        return parse_signature(str(self.signature_text))

    @property
    def streamed_fields(self) -> tuple[str, ...]:
        """Names of the outputs whose texts are streamed, or come at the end where streams are off."""
        if isinstance(self.stream, tuple):
            return tuple(dict.fromkeys(name.rpartition(".")[2] for name in self.stream))
        return tuple(field.name for field in self.signature.outputs if field.type_text == "str")

    @functools.cached_property
    def chat_fields(self) -> ConversationFields | None:
        """The fields of its conversations; None for a program that does not chat."""
        try:
            return find_conversation_fields(self.signature, self.chat)
        except ValueError:
            return None

    @property
    def unstated(self) -> str | None:
        """The line to add where the fields are neither stated nor derived from the class in this process; else None."""
        if self.signature_text is not None or "signature" in vars(self):
            return None
        if self._origin is not None:
            return self._origin.program.unstated
        return (
            f"programs.{self.name}.signature: missing: a producer does not load {self.class_path}; add the line that "
            "`dspyq check` prints where dspyq[worker] is installed"
        )

    def complete(self, derived: Signature) -> None:
        """Set the signature derived from the class, where the file states none.

        Raises:
            ConfigurationError: If it does not go with the other settings.
        """
        try:
            self._check(derived)
        except ValueError as error:
            raise ConfigurationError(f"programs.{self.name}.{error}") from None
        vars(self)["signature"] = derived
        if faults := list(self._variant_faults()):
            raise ConfigurationError([f"programs.{self.name}.{'.'.join(place)}: {text}" for place, text in faults])

    @property
    def identity(self) -> dict[str, Any]:
        """Settings that answers depend on, but for the model's."""
        identity: dict[str, Any] = {
            "dspy": self.dspy_version,
            "signature": str(self.signature),
            "instructions": self.instructions,
            "module": self.class_path or self.module,
            "state": self.state_sha256,
            "adapter": self.adapter,
            "version": self.version,
        }
        names = {field.name for field in (*self.signature.inputs, *self.signature.outputs)}
        if described := {name: field.description for name, field in self.fields.items() if name in names}:
            identity |= {"fields": described}
        if self.models:
            identity |= {"models": {path: model.identity for path, model in self.models.items()}}
        return identity

    @functools.cached_property
    def fingerprints(self) -> dict[str, str]:
        """Each variant's fingerprint, 32 hexadecimal digits: a hash of all that answers depend on, except inputs."""
        if self._origin is not None:
            return self._origin.program.fingerprints
        served = self.served
        return {
            name: _digest(served[name].identity | variant.model.identity) for name, variant in self.variants.items()
        }


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(identity: dict[str, Any]) -> str:
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":")).encode()
    return blake3(canonical).hexdigest(length=16)
