"""The configuration: a TOML file under environment variables, validated whole, then frozen.

``DSPYQ_CONFIG`` names the file, ``dspyq.toml`` in the working directory where it is unset. Any setting can come from
the environment: ``DSPYQ_CACHE__MEMORY_ENTRIES=0``.
"""

from __future__ import annotations

import functools
import os
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic.functional_validators import ModelWrapValidatorHandler
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from dspyq.config.batches import Batch
from dspyq.config.models import Model, Name, Program, Variant, file_sha256
from dspyq.config.sections import Breaker, Budget, Cache, Delivery, Logging, Metrics, RateLimit, Retry, Tracing, Workers
from dspyq.errors import ConfigurationError

DEFAULT_FILE = "dspyq.toml"
_ENV_PREFIX = "DSPYQ_"
_NESTED = "__"
_WEIGHT_TOLERANCE = 0.001
#: Filled in from the tables around them, never written in the file.
_DERIVED = {
    Model: ("name",),
    Variant: ("name", "queue"),
    Program: ("name", "state_sha256"),
    Batch: ("name",),
}

RedisUrl = Annotated[str, Field(pattern=r"^(rediss?|sentinel)://\S+$")]


class Settings(BaseSettings):
    """Everything that is configured.

    Attributes:
        redis_url: The Redis for everything.
        broker_url: The Redis of jobs and claims, where it is another one.
        result_url: The Redis of answers, where it is another one.
        sentinel_master: The name of the master, where the URLs are those of sentinels.
        models: Model endpoints by name.
        programs: Programs by name.
        batches: Batches that are run by a schedule, by name.
        cache: The cache in each process's memory.
        delivery: How jobs reach workers.
        workers: Each worker process.
        breaker: The circuit breaker of every model.
        rate_limit: What all models' limits have in common.
        retry: Model calls that failed on something that passes.
        budget: What all model calls together may cost.
        metrics: What Prometheus reads of each worker.
        logging: What logs show, and where.
        tracing: OpenTelemetry's spans.
    """

    model_config = SettingsConfigDict(
        env_prefix=_ENV_PREFIX,
        env_nested_delimiter=_NESTED,
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
        defer_build=True,
    )

    redis_url: RedisUrl = "redis://127.0.0.1:6379/0"
    broker_url: RedisUrl | None = None
    result_url: RedisUrl | None = None
    sentinel_master: str | None = None
    models: dict[Name, Model] = {}
    programs: dict[Name, Program] = {}
    batches: dict[Name, Batch] = {}
    cache: Cache = Cache()
    delivery: Delivery = Delivery()
    workers: Workers = Workers()
    breaker: Breaker = Breaker()
    rate_limit: RateLimit = RateLimit()
    retry: Retry = Retry()
    budget: Budget = Budget()
    metrics: Metrics = Metrics()
    logging: Logging = Logging()
    tracing: Tracing = Tracing()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment win over the file, which arrives as the initial values."""
        del settings_cls, dotenv_settings, file_secret_settings
        return env_settings, init_settings

    @model_validator(mode="wrap")
    @classmethod
    def _every_fault_at_once(cls, data: Any, handler: ModelWrapValidatorHandler[Settings]) -> Settings:
        linked, faults = _link(data)
        try:
            settings = handler(linked)
        except ValidationError as error:
            lines = [_describe(details) for details in error.errors() if not _is_already_told(details)]
            raise ConfigurationError([*faults, *lines]) from None
        if faults:
            raise ConfigurationError(faults)
        return settings

    @property
    def jobs_url(self) -> str:
        """The Redis of jobs, claims and statistics."""
        return self.broker_url or self.redis_url

    @property
    def answers_url(self) -> str:
        """The Redis of results."""
        return self.result_url or self.redis_url

    @property
    def is_one_redis(self) -> bool:
        """Whether jobs and answers live together, so that one script can see both."""
        return self.jobs_url == self.answers_url


@functools.cache
def get_settings() -> Settings:
    """Return this process's settings, read once.

    Raises:
        ConfigurationError: With every fault of the file and the environment.
    """
    named = os.environ.get("DSPYQ_CONFIG")
    path = Path(named or DEFAULT_FILE)
    if not path.exists() and not named:
        return load_settings(None)
    return load_settings(path)


def load_settings(path: Path | None) -> Settings:
    """Read and validate a configuration file under the environment.

    Args:
        path: The TOML file, or None for the environment alone.

    Raises:
        ConfigurationError: With every fault, one line each.
    """
    document = _read(path) if path else {}
    folder = path.parent if path else Path()
    _locate_files_of_batches(document, folder)
    faults = [*_unknown_variables(), *_locate_states(document, folder)]
    try:
        settings = Settings(**document)
    except ConfigurationError as error:
        raise ConfigurationError([*faults, *error.faults]) from None
    except TypeError as error:  # a top-level key that is no identifier
        raise ConfigurationError([*faults, str(error)]) from None
    except ValueError as error:  # pydantic-settings: an environment variable that should hold JSON
        raise ConfigurationError([*faults, f"environment: {error}"]) from None
    if faults:
        raise ConfigurationError(faults)
    return settings


def _read(path: Path) -> dict[str, Any]:
    import tomllib  # noqa: PLC0415 - costs an import what only reading a file needs

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(
            f"cannot read {path}: {error.strerror}; set DSPYQ_CONFIG to your configuration file"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not valid TOML: {error}") from None


def _tables(holder: Any, key: str) -> dict[str, dict[str, Any]]:
    """The named tables under a key; what is no table is left for the validation to name."""
    tables = holder.get(key) if isinstance(holder, dict) else None
    if not isinstance(tables, dict):
        return {}
    return {name: table for name, table in tables.items() if isinstance(table, dict)}


def _locate_states(document: dict[str, Any], folder: Path) -> list[str]:
    """Resolve state files beside the configuration file and hash them into the document."""
    faults = []
    for name, program in _tables(document, "programs").items():
        if not isinstance(program.get("state"), str):
            continue
        path = (folder / program["state"]).resolve()
        try:
            program |= {"state": path, "state_sha256": file_sha256(path)}
        except OSError as error:
            faults.append(f"programs.{name}.state: cannot read {path}: {error.strerror}")
        document["programs"][name] = program
    return faults


def _locate_files_of_batches(document: dict[str, Any], folder: Path) -> None:
    """Resolve the files of batches beside the configuration file; they need not exist yet."""
    for name, batch in _tables(document, "batches").items():
        files = {key: (folder / batch[key]).resolve() for key in ("input", "output") if isinstance(batch.get(key), str)}
        document["batches"][name] = batch | files


def _link(data: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Give each table its name and each variant its model's table; return the document and the links that fail."""
    faults: list[str] = []
    urls = [str(data.get(key, "")) for key in ("redis_url", "broker_url", "result_url")]
    if any(url.startswith("sentinel://") for url in urls) and not data.get("sentinel_master"):
        faults.append("sentinel_master: missing: the name that the sentinels give to the master")
    models = {name: {**table, "name": name} for name, table in _tables(data, "models").items()}
    linked = {**data}
    if models:
        linked["models"] = {**data["models"], **models}
    if programs := _tables(data, "programs"):
        linked["programs"] = {**data["programs"]}
    for name, program in programs.items():
        variants = {}
        for variant_name, variant in _tables(program, "variants").items():
            model_name = variant.get("model")
            if isinstance(model_name, str) and model_name not in models:
                faults.append(
                    f"programs.{name}.variants.{variant_name}.model: there is no [models.{model_name}] table"
                    f"{_nearest(model_name, models)}"
                )
            derived = {"name": variant_name, "queue": f"{name}.{variant_name}"}
            variants[variant_name] = {**variant, **derived, "model": models.get(str(model_name), model_name)}
        linked["programs"][name] = {"salt": name, **program, "name": name}
        if variants:
            linked["programs"][name]["variants"] = {**program["variants"], **variants}
            faults.extend(_weights_that_do_not_sum_to_one(name, variants))
    if batches := _tables(data, "batches"):
        timezone = data["budget"].get("timezone", "UTC") if isinstance(data.get("budget"), dict) else "UTC"
        linked["batches"] = data["batches"] | {
            name: {"timezone": timezone, **batch, "name": name} for name, batch in batches.items()
        }
        faults.extend(_batches_that_lead_nowhere(batches, programs))
    return linked, faults


def _batches_that_lead_nowhere(
    batches: dict[str, dict[str, Any]], programs: dict[str, dict[str, Any]]
) -> Iterator[str]:
    outputs: dict[str, str] = {}
    for name, batch in batches.items():
        program = batch.get("program", next(iter(programs)) if len(programs) == 1 else None)
        if program is None:
            yield f"batches.{name}.program: missing: there are several ({', '.join(programs) or 'none at all'})"
        elif program not in programs:
            yield f"batches.{name}.program: there is no [programs.{program}] table{_nearest(str(program), programs)}"
        elif (variant := batch.get("variant")) is not None:
            variants = _tables(programs[program], "variants")
            if variant not in variants:
                yield f"batches.{name}.variant: {program} has no variant {variant!r}{_nearest(str(variant), variants)}"
        other = outputs.setdefault(str(batch.get("output", name)), name)
        if other != name:
            yield f"batches.{name}.output: the same as that of [batches.{other}]"


def _weights_that_do_not_sum_to_one(program: str, variants: dict[str, dict[str, Any]]) -> Iterator[str]:
    try:
        weights = {name: float(variant.get("weight", 1.0)) for name, variant in variants.items()}
    except (TypeError, ValueError):
        return  # told by the validation, as a weight that is no number
    total = sum(weights.values())
    if not abs(total - 1) <= _WEIGHT_TOLERANCE:
        stated = ", ".join(f"{name} = {weight:g}" for name, weight in weights.items())
        yield f"programs.{program}.variants: the weights sum to {total:g}, not 1 ({stated})"


def _is_already_told(details: ErrorDetails) -> bool:
    """Faults inside a variant's model are told at the model itself, or as a link that fails."""
    location = details["loc"]
    is_variant = len(location) > 4 and location[0] == "programs" and location[2] == "variants"  # noqa: PLR2004 - programs.p.variants.v.model
    return is_variant and location[4] == "model" and details["type"] != "missing"


def _describe(details: ErrorDetails) -> str:
    location = [str(part) for part in details["loc"] if part != "[key]"]
    where = ".".join(location) or "configuration"
    match details["type"]:
        case "extra_forbidden":
            return f"{where}: unknown key{_nearest(location[-1], _known_keys(location[:-1]))}"
        case "missing":
            return f"{where}: missing"
        case "value_error":
            return f"{where}: {details['msg'].removeprefix('Value error, ')}"
        case _:
            message = details["msg"][0].lower() + details["msg"][1:]
            # A URL may hold a password.
            return f"{where}: {message}" + ("" if where.endswith("_url") else f", not {details['input']!r}")


def _known_keys(location: list[str]) -> list[str]:
    annotation: Any = Settings
    for part in location:
        if get_origin(annotation) is dict:
            annotation = get_args(annotation)[1]
        else:
            field = next((f for n, f in annotation.model_fields.items() if part in (n, f.alias)), None)
            annotation = field.annotation if field else None
        if get_origin(annotation) in (Union, types.UnionType):
            annotation = next((a for a in get_args(annotation) if a is not type(None)), None)
        if annotation is None:
            return []
    if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return []
    derived = _DERIVED.get(annotation, ())
    return [field.alias or name for name, field in annotation.model_fields.items() if name not in derived]


def _nearest(name: str, known: Any) -> str:
    import difflib  # noqa: PLC0415 - only a faulty file needs it

    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {close[0]}?)" if close else ""


def _unknown_variables() -> Iterator[str]:
    """Environment variables that look like settings and are none."""
    elsewhere = {"CONFIG"}
    for variable in sorted(os.environ):
        if not variable.startswith(_ENV_PREFIX):
            continue
        first = variable.removeprefix(_ENV_PREFIX).split(_NESTED)[0]
        if first.lower() not in Settings.model_fields and first not in elsewhere:
            known = [f"{_ENV_PREFIX}{name.upper()}" for name in Settings.model_fields]
            yield f"environment variable {variable}: unknown setting{_nearest(variable, known)}"
