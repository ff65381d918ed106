"""The tables of the configuration file that stand once: everything but models and programs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator

from dspyq.config.models import Table, Usd

HttpUrl = Annotated[str, Field(pattern=r"^https?://[^\s/]+")]


class Cache(Table):
    """``[cache]``: the cache in each process's memory, in front of Redis.

    Attributes:
        memory_entries: The most answers it holds; 0 turns it off.
        memory_bytes: The most bytes of JSON it holds.
        memory_ttl_seconds: The longest it serves an answer without asking Redis.
        result_ttl_seconds: How long any result can be fetched at least, cached or not, failures too.
    """

    memory_entries: Annotated[int, Field(ge=0)] = 10_000
    memory_bytes: PositiveInt = 64 * 1024 * 1024
    memory_ttl_seconds: PositiveFloat = 300.0
    result_ttl_seconds: PositiveInt = 3600


class Delivery(Table):
    """``[delivery]``: how jobs reach workers.

    Attributes:
        visibility_timeout_seconds: How long a worker that stopped answering keeps its jobs before others get them.
        claim_timeout_seconds: How long a question stays claimed by a producer that died before it sent the job.
        max_deliveries: How often the workers of a job may die or freeze before it is set aside.
        max_hand_backs: How often a job is given back by workers of another version before it fails.
        shutdown_grace_seconds: How long running predictions may go on when a worker is told to end.
    """

    visibility_timeout_seconds: PositiveFloat = 30.0
    claim_timeout_seconds: PositiveFloat = 30.0
    max_deliveries: PositiveInt = 3
    max_hand_backs: Annotated[int, Field(ge=0)] = 10
    shutdown_grace_seconds: Annotated[float, Field(ge=0)] = 30.0


class Workers(Table):
    """``[workers]``: each worker process.

    Attributes:
        concurrency: Predictions that run at once, each in a thread.
        prefetch_multiplier: Jobs a worker holds for each thread, running or waiting.
        imports: Modules with Celery tasks of your own that this worker serves too.
    """

    concurrency: PositiveInt = 50
    prefetch_multiplier: PositiveInt = 1
    imports: tuple[str, ...] = ()


class Breaker(Table):
    """``[breaker]``: the circuit breaker of every model; a model's table may say otherwise for itself.

    Attributes:
        failure_threshold: Failures in a row, of all workers together, that open it.
        success_threshold: Calls in a row that must succeed to close it again.
        reset_timeout_seconds: How long it stays open before one call may probe.
        max_reset_timeout_seconds: What that doubles up to, while probes fail.
        when_redis_fails: Whether calls are made while Redis cannot say.
    """

    failure_threshold: PositiveInt = 5
    success_threshold: PositiveInt = 1
    reset_timeout_seconds: PositiveFloat = 10.0
    max_reset_timeout_seconds: PositiveFloat = 300.0
    when_redis_fails: Literal["allow", "refuse"] = "allow"


class RateLimit(Table):
    """``[rate_limit]``: what all models' limits have in common.

    Attributes:
        longest_wait_seconds: How long a thread waits for its turn; a job whose turn is later returns to its queue.
        max_retry_after_seconds: The longest a provider's 429 stops everybody.
        account_pause_seconds: How long a model rests once its account is refused or its quota used up; doubled each
            time.
        max_account_pause_seconds: What that doubles up to.
        when_redis_fails: Whether calls are made while Redis cannot say.
    """

    longest_wait_seconds: Annotated[float, Field(ge=0)] = 2.0
    max_retry_after_seconds: PositiveFloat = 300.0
    account_pause_seconds: PositiveFloat = 60.0
    max_account_pause_seconds: PositiveFloat = 3600.0
    when_redis_fails: Literal["allow", "refuse"] = "allow"


class Retry(Table):
    """``[retry]``: model calls that failed on something that passes.

    Attributes:
        max_attempts: The most attempts of one call, the first included, over all runs of its job.
        max_seconds: After this, counted from the first attempt, none is begun.
        base_delay_seconds: The longest wait before the second attempt; doubled for each further one. The wait itself is
            drawn evenly between nothing and that.
        max_delay_seconds: What that doubles up to.
        max_parse_attempts: How often a program may run on replies that cannot be parsed, the first included.
    """

    max_attempts: PositiveInt = 3
    max_seconds: PositiveFloat = 60.0
    base_delay_seconds: PositiveFloat = 0.5
    max_delay_seconds: PositiveFloat = 20.0
    max_parse_attempts: PositiveInt = 2


class Budget(Table):
    """``[budget]``: what all model calls together may cost. Programs and variants may have limits of their own besides.

    Attributes:
        daily_usd: The most in a day; no limit where left out.
        monthly_usd: The most in a month; no limit where left out.
        timezone: Where days and months begin at midnight, as in ``Europe/Berlin``.
    """

    daily_usd: Usd | None = None
    monthly_usd: Usd | None = None
    timezone: str = "UTC"

    @field_validator("timezone")
    @classmethod
    def _is_known(cls, name: str) -> str:
        from dspyq.core.wall_clock import find_timezone  # noqa: PLC0415 - costs an import what only a configured zone needs

        find_timezone(name)
        return name


class Metrics(Table):
    """``[metrics]``: what Prometheus and orchestrators read of each worker.

    Attributes:
        port: Where metrics and health are served; 0 picks a free one and logs it; not at all where left out.
        address: The address to listen at.
    """

    port: Annotated[int, Field(ge=0, le=65_535)] | None = None
    address: str = "127.0.0.1"


class Logging(Table):
    """``[logging]``: what a worker says on standard error, and to Loki.

    Attributes:
        include_content: Whether inputs, answers and exception texts may appear in logs, events and Flower.
        level: What is said at least, where ``celery worker -l`` says nothing else.
        format: ``json``, a line of it for each entry; ``console``, to be read; ``auto``, that in a terminal alone.
        service_name: What entries and traces name as their service.
        producer_entries: Whether producers log an entry for each answer that they had from the cache.
        loki_url: Where entries are pushed to besides; not at all where left out.
        loki_tenant: The tenant of a Loki that has several.
        loki_authorization_env: The environment variable that holds the ``Authorization`` header for Loki.
    """

    include_content: bool = False
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    format: Literal["auto", "json", "console"] = "auto"
    service_name: Annotated[str, Field(min_length=1)] = "dspyq"
    producer_entries: bool = False
    loki_url: HttpUrl | None = None
    loki_tenant: str | None = None
    loki_authorization_env: str | None = None


class Tracing(Table):
    """``[tracing]``: OpenTelemetry's spans of predictions and their model calls.

    Attributes:
        enabled: Whether there are any; where left out, if there is an endpoint.
        endpoint: Where OTLP is taken over HTTP, as in ``http://127.0.0.1:4318``. Left out, spans go to the tracer
            provider that the process has configured.
        service_name: What spans name as their service; ``logging.service_name`` where left out.
        sample_ratio: The part of traces begun here that is recorded.
    """

    enabled: bool | None = None
    endpoint: HttpUrl | None = None
    service_name: str | None = None
    sample_ratio: Annotated[float, Field(ge=0, le=1)] = 1.0

    @property
    def is_on(self) -> bool:
        """Whether spans are made."""
        return self.endpoint is not None if self.enabled is None else self.enabled
