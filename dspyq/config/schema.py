"""All tables of the configuration, and the whole of them: the settings.

A process loads this when it reads its configuration, not when it imports a producer (``dspyq.config.settings``).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import AfterValidator, Field, PositiveFloat, ValidationError, model_validator
from pydantic.functional_validators import ModelWrapValidatorHandler
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from dspyq.config import sections
from dspyq.config.batches import ScheduledBatch
from dspyq.config.forms import DspyVersion, form
from dspyq.config.lane_faults import find_lane_faults
from dspyq.config.links import link_tables
from dspyq.config.models import Model, Name
from dspyq.config.programs import DEFAULT_DSPY_VERSION, Program
from dspyq.config.setting_faults import describe_fault, is_reported_elsewhere, nearest_hint
from dspyq.core.redis_address import HOME, parse_address, spine_urls, url_of_spine
from dspyq.errors import ConfigurationError

_ENV_PREFIX = "DSPYQ_"
_NESTED = "__"


def _redis_url(url: str) -> str:
    """Check a URL, so that a faulty one is reported at start."""
    parse_address(url)
    return url.strip()


RedisUrl = Annotated[str, AfterValidator(_redis_url)]

#: Settings that name one Redis.
_REDIS_SETTINGS = ("redis_url", "broker_url", "result_url")
#: Safe inside patterns, Lua strings and ACLs. Celery would put an underscore behind any other end.
KeyPrefix = Annotated[
    str,
    Field(
        pattern=form(
            r"^([A-Za-z0-9._:-]{0,63}[._:-])?$",
            "use up to 64 letters, digits, ., :, _ and -, and end with one of these signs",
        )
    ),
]


class Settings(BaseSettings):
    """The whole configuration.

    Attributes:
        redis_url: The Redis for everything not stated otherwise; or a cluster, with the number of its slots over which
            questions are spread.
        broker_url: The Redis of jobs and claims, where it is another one.
        result_url: The Redis of answers, where it is another one.
        redis_urls: Several Redis servers in place of ``redis_url``, over which questions are spread.
        former_redis_urls: The ``redis_urls`` before a server was added or left out, until all that it held has expired.
        money_url: The Redis of budgets, rates, breakers, books, batches and API keys, where it is another one.
        key_prefix: What every key, list and channel begins with, so that several deployments can share a Redis.
        sentinel_master: The name of the master, where the URLs are those of sentinels.
        sentinel_username: The user at the sentinels themselves.
        sentinel_password: The password of the sentinels themselves.
        redis_timeout_seconds: How long a call may wait for Redis before it fails with ``RedisUnavailable``.
        dspy_version: The DSPy that workers compute answers with. Prompts and parsing are DSPy's, so its version is part
            of every fingerprint; producers have no DSPy to read it from, and workers refuse to start on another one.
        models: Model endpoints by name.
        programs: Programs by name.
        batches: Batches that run on a schedule, by name.
        cache: The cache in each process's memory.
        delivery: How jobs reach workers.
        workers: Each worker process.
        breaker: The circuit breaker of every model.
        rate_limit: Settings common to all models' limits.
        retry: Retries of model calls after transient failures.
        budget: Limits on the cost of all model calls.
        lane: Batches through the provider's batch interface.
        tenants: Limits of each tenant.
        metrics: The endpoint of each worker for Prometheus.
        serve: The HTTP door, ``dspyq serve``.
        encryption: The keys that seal content.
        logging: The content and destinations of logs.
        tracing: OpenTelemetry's spans.
    """

    model_config = SettingsConfigDict(
        env_prefix=_ENV_PREFIX,
        env_nested_delimiter=_NESTED,
        extra="forbid",
        frozen=True,
        defer_build=True,
    )

    redis_url: RedisUrl = "redis://127.0.0.1:6379/0"
    broker_url: RedisUrl | None = None
    result_url: RedisUrl | None = None
    redis_urls: tuple[RedisUrl, ...] = ()
    former_redis_urls: tuple[RedisUrl, ...] = ()
    money_url: RedisUrl | None = None
    key_prefix: KeyPrefix = ""
    sentinel_master: str | None = None
    sentinel_username: str | None = None
    sentinel_password: str | None = None
    redis_timeout_seconds: PositiveFloat = 10.0
    dspy_version: DspyVersion = DEFAULT_DSPY_VERSION
    models: dict[Name, Model] = {}
    programs: dict[Name, Program] = {}
    batches: dict[Name, ScheduledBatch] = {}
    # Made when settings are: their classes are built at first use, and an import must cost little.
    cache: sections.CacheSection = Field(default_factory=sections.CacheSection)
    delivery: sections.DeliverySection = Field(default_factory=sections.DeliverySection)
    workers: sections.WorkersSection = Field(default_factory=sections.WorkersSection)
    breaker: sections.BreakerSection = Field(default_factory=sections.BreakerSection)
    rate_limit: sections.RateLimitSection = Field(default_factory=sections.RateLimitSection)
    retry: sections.RetrySection = Field(default_factory=sections.RetrySection)
    budget: sections.BudgetSection = Field(default_factory=sections.BudgetSection)
    lane: sections.LaneSection = Field(default_factory=sections.LaneSection)
    tenants: sections.TenantsSection = Field(default_factory=sections.TenantsSection)
    metrics: sections.MetricsSection = Field(default_factory=sections.MetricsSection)
    serve: sections.ServeSection = Field(default_factory=sections.ServeSection)
    encryption: sections.EncryptionSection = Field(default_factory=sections.EncryptionSection)
    logging: sections.LoggingSection = Field(default_factory=sections.LoggingSection)
    tracing: sections.TracingSection = Field(default_factory=sections.TracingSection)

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
        linked, faults = link_tables(data)
        try:
            settings = handler(linked)
        except ValidationError as error:
            lines = [describe_fault(details, cls) for details in error.errors() if not is_reported_elsewhere(details)]
            raise ConfigurationError([*faults, *lines]) from None
        if faults := [*faults, *find_lane_faults(settings.batches, settings.programs)]:
            raise ConfigurationError(faults)
        return settings

    @model_validator(mode="after")
    def _has_keys_for_what_is_sealed(self) -> Settings:
        sealed = [name for name, program in self.programs.items() if program.encrypt]
        if sealed and not self.encryption.is_on:
            raise ValueError(f"programs.{sealed[0]}.encrypt needs keys: add [encryption] with keys_file")
        if self.encryption.index_units and not sealed:
            raise ValueError("encryption.index_units needs a program with encrypt: units are hashed with its key")
        return self

    @model_validator(mode="after")
    def _names_a_cluster_alone(self) -> Settings:
        clusters = [name for name in _REDIS_SETTINGS if (url := getattr(self, name)) and parse_address(url).spines]
        if {"broker_url", "result_url"} & set(clusters):
            raise ValueError("a cluster holds jobs and answers: name it in redis_url")
        if "redis_url" in clusters and (self.broker_url or self.result_url):
            raise ValueError(
                "redis_url is a cluster, which holds jobs and answers: leave out broker_url and result_url"
            )
        if len(self.redis_urls) > 1 and any(parse_address(url).spines for url in self.redis_urls):
            raise ValueError("redis_urls names a cluster among others: name it alone, in redis_url")
        return self

    @model_validator(mode="after")
    def _names_each_redis_once(self) -> Settings:
        if not self.redis_urls:
            return self
        if {"redis_url", "broker_url", "result_url"} & {name for name in self.model_fields_set if getattr(self, name)}:
            raise ValueError("redis_urls stands in place of redis_url, broker_url and result_url: leave those out")
        if len({str(parse_address(url)) for url in self.redis_urls}) < len(self.redis_urls):
            raise ValueError("redis_urls names a server twice: each spine is a Redis, or a database, of its own")
        return self

    @model_validator(mode="after")
    def _changes_servers_in_place(self) -> Settings:
        if not self.former_redis_urls:
            return self
        former, current = (
            [str(parse_address(url)) for url in urls] for urls in (self.former_redis_urls, self.redis_urls)
        )
        if not current:
            raise ValueError("former_redis_urls is the redis_urls before a change: state redis_urls too")
        if any(parse_address(url).spines for url in (*self.former_redis_urls, *self.redis_urls)):
            raise ValueError("former_redis_urls names a cluster, or stands beside one: a cluster grows by moving slots")
        if len(former) == 1:
            raise ValueError("former_redis_urls names one server: its ids lead to no other; let its jobs end first")
        if len(set(former)) < len(former):
            raise ValueError("former_redis_urls names a server twice")
        if self.money_url is None and former[0] != current[0]:
            raise ValueError(
                f"redis_urls must still begin with {former[0]}, which holds budgets and API keys: keep it first, or "
                "state money_url"
            )
        return self

    @property
    def spine_urls(self) -> tuple[str, ...]:
        """URLs of the servers that hold questions, those to drain last; of a cluster, those of its spines."""
        urls = self.redis_urls or (self.broker_url or self.redis_url,)
        if self.former_redis_urls:
            names = {str(parse_address(url)) for url in urls}
            urls += tuple(url for url in self.former_redis_urls if str(parse_address(url)) not in names)
        return tuple(spine_urls(urls[0])) if len(urls) == 1 else urls

    @property
    def home_url(self) -> str:
        """URL of the Redis of all that the fleet has once."""
        if self.money_url is None and len(self.spine_urls) == 1:
            return self.jobs_url
        url = self.money_url or (self.redis_urls or (self.redis_url,))[0]
        address = parse_address(url)
        return url_of_spine(url, HOME) if address.spines and not address.spine else url

    @property
    def is_money_apart(self) -> bool:
        """True if what the fleet has once is not read together with jobs, as it may be in another Redis."""
        return self.money_url is not None or len(self.spine_urls) > 1

    @property
    def control_url(self) -> str:
        """URL of the Redis of Celery's own messages: remote control, events, and tasks that other applications send."""
        return self.home_url if len(self.spine_urls) > 1 else self.jobs_url

    @property
    def jobs_url(self) -> str:
        """URL of the Redis of jobs, claims and statistics; of the first spine, where there are several."""
        return self.spine_urls[0]

    @property
    def answers_url(self) -> str:
        """URL of the Redis of results; of the first spine, where there are several."""
        return self.result_url or (self.redis_url if self.broker_url else self.spine_urls[0])

    @property
    def is_one_redis(self) -> bool:
        """True if jobs and answers are in one Redis, so that one script can change both."""
        return parse_address(self.jobs_url) == parse_address(self.answers_url)


class SettingsWithoutEnvironment(Settings):
    """As ``Settings``, of a file alone."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take the initial values alone."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)


def unknown_variables() -> Iterator[str]:
    """Yield a fault for each environment variable that looks like a setting and is none."""
    elsewhere = {"CONFIG"}
    for variable in sorted(os.environ):
        if not variable.startswith(_ENV_PREFIX):
            continue
        first = variable.removeprefix(_ENV_PREFIX).split(_NESTED)[0]
        if first.lower() not in Settings.model_fields and first not in elsewhere:
            known = [f"{_ENV_PREFIX}{name.upper()}" for name in Settings.model_fields]
            yield f"environment variable {variable}: unknown setting{nearest_hint(variable, known)}"
