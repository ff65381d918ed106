"""Tables that the configuration file has once: everything but models, programs and batches."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, field_validator, model_validator

from dspyq.config.forms import form
from dspyq.config.key_grants import StatedKey
from dspyq.config.lanes import check_hour
from dspyq.config.models import Name, Table, Usd
from dspyq.core.address import check_address, check_collector, check_network, check_origin, check_variable
from dspyq.core.names import DEFAULT_MAX_JOB_BYTES

Variable = Annotated[str, AfterValidator(check_variable)]

#: Settings of earlier versions, each with what to do instead.
REPLACED = {
    "delivery.max_hand_backs": "removed: a job waits for a worker of its version by time; set "
    "delivery.version_wait_seconds in its place",
}


class CacheSection(Table):
    """``[cache]``: the cache in each process's memory, in front of Redis.

    Attributes:
        memory_entries: The most answers it holds; 0 turns it off.
        memory_bytes: The most bytes of JSON it holds.
        memory_ttl_seconds: The longest it serves an answer.
        result_ttl_seconds: How long any result can be fetched at least, failures included.
    """

    memory_entries: Annotated[int, Field(ge=0)] = 10_000
    memory_bytes: PositiveInt = 64 * 1024 * 1024
    memory_ttl_seconds: PositiveFloat = 300.0
    result_ttl_seconds: PositiveInt = 3600


class DeliverySection(Table):
    """``[delivery]``: how jobs reach workers.

    Attributes:
        visibility_timeout_seconds: The length of a lease: how long a dead worker keeps its jobs.
        claim_timeout_seconds: How long a question stays claimed by a producer that died before it sent the job.
        max_deliveries: How often the workers of a job may die or freeze before the job is dead-lettered.
        version_wait_seconds: How long a job waits for a worker with its version of the variant, before it fails.
        max_job_bytes: The most bytes of a job's message, its links and headers included; at least what the largest
            inputs take that a program may have.
        max_dead_jobs: The most dead-lettered jobs that are kept; the oldest go first.
        dead_jobs_days: How long they are kept.
        shutdown_grace_seconds: How long running predictions may continue after a worker gets SIGTERM.
    """

    visibility_timeout_seconds: PositiveFloat = 30.0
    claim_timeout_seconds: PositiveFloat = 30.0
    max_deliveries: PositiveInt = 3
    version_wait_seconds: Annotated[float, Field(ge=0)] = 300.0
    max_job_bytes: PositiveInt = DEFAULT_MAX_JOB_BYTES
    max_dead_jobs: PositiveInt = 10_000
    dead_jobs_days: PositiveFloat = 30.0
    shutdown_grace_seconds: Annotated[float, Field(ge=0)] = 30.0


class WorkersSection(Table):
    """``[workers]``: each worker process.

    Attributes:
        concurrency: Predictions that run at once, each in a thread.
        prefetch_multiplier: Jobs a worker holds for each thread, running or waiting.
        imports: Modules with Celery tasks of your own, which workers serve too.
        remote_control: Whether workers obey Celery's remote control, which anyone who may publish in Redis can use to
            shut them down.
        spines: Spines of ``redis_urls`` that a worker serves, those that the fewest others do; all unless stated.
    """

    concurrency: PositiveInt = 50
    prefetch_multiplier: PositiveInt = 1
    imports: tuple[str, ...] = ()
    remote_control: bool = False
    spines: PositiveInt | None = None


class BreakerSection(Table):
    """``[breaker]``: the circuit breaker of every model; a model's table overrides it.

    Attributes:
        failure_threshold: Failures in a row, over all workers, that open it.
        success_threshold: Successful probes in a row that close it.
        reset_timeout_seconds: How long it stays open before one call may probe.
        max_reset_timeout_seconds: The longest it stays open; the time doubles with each failed probe.
        when_redis_fails: ``allow`` or ``refuse`` calls while Redis does not answer.
    """

    failure_threshold: PositiveInt = 5
    success_threshold: PositiveInt = 1
    reset_timeout_seconds: PositiveFloat = 10.0
    max_reset_timeout_seconds: PositiveFloat = 300.0
    when_redis_fails: Literal["allow", "refuse"] = "allow"


class RateLimitSection(Table):
    """``[rate_limit]``: settings common to all models' limits.

    Attributes:
        longest_wait_seconds: How long a thread waits for its turn; a job with a later turn returns to its queue.
        max_retry_after_seconds: The longest that a 429 stops all calls of the model.
        account_pause_seconds: How long a model rests once its account is refused or its quota used up; doubled each
            time.
        max_account_pause_seconds: The longest such pause.
        when_redis_fails: ``allow`` or ``refuse`` calls while Redis does not answer.
    """

    longest_wait_seconds: Annotated[float, Field(ge=0)] = 2.0
    max_retry_after_seconds: PositiveFloat = 300.0
    account_pause_seconds: PositiveFloat = 60.0
    max_account_pause_seconds: PositiveFloat = 3600.0
    when_redis_fails: Literal["allow", "refuse"] = "allow"


class RetrySection(Table):
    """``[retry]``: retries of model calls after transient failures.

    Attributes:
        max_attempts: The most attempts of one call, the first included, over all runs of its job.
        most_probes: The most failed probes of one question and model, and failures that open the breaker, over all runs
            of its job; also its refusals with a 429 while others are answered.
        max_seconds: No attempt begins later than this after the first.
        base_delay_seconds: The longest wait before the second attempt; doubled for each further one. The wait itself is
            drawn evenly between nothing and that.
        max_delay_seconds: The longest wait of all.
        max_parse_attempts: How often a program may run if replies cannot be parsed, the first run included.
    """

    max_attempts: PositiveInt = 3
    most_probes: PositiveInt = 3
    max_seconds: PositiveFloat = 60.0
    base_delay_seconds: PositiveFloat = 0.5
    max_delay_seconds: PositiveFloat = 20.0
    max_parse_attempts: PositiveInt = 2


class BudgetSection(Table):
    """``[budget]``: limits on the cost of all model calls. Programs and variants can have their own limits too.

    Attributes:
        daily_usd: The most that all calls may cost in a day; no limit by default.
        monthly_usd: The most that all calls may cost in a month; no limit by default.
        timezone: The time zone in which days and months begin, such as ``Europe/Berlin``.
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


class LaneSection(Table):
    """``[lane]``: batches through the provider's batch interface.

    Attributes:
        hold_share: The most of what a day's budget has left that calls in lanes may hold, all together.
        finish_by: The hour by which every batch with a lane is to be done, as in ``07:00``, in the time zone of
            ``[budget]``; no hour where left out.
        first_poll_seconds: How long after its submission a shipment is looked at for the first time.
        settle_seconds: How long the batch of a lost creation is looked for at the provider, before another one is made.
    """

    hold_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    finish_by: Annotated[str, AfterValidator(check_hour)] | None = None
    first_poll_seconds: PositiveFloat = 30.0
    settle_seconds: PositiveFloat = 120.0


class TenantsSection(Table):
    """``[tenants]``: limits of each tenant that has none of its own, which ``dspyq tenants limit`` sets.

    Attributes:
        daily_usd: The most that the calls of a tenant may cost in a day; no limit by default.
        monthly_usd: The most that they may cost in a month; no limit by default.
        requests_per_second: The most model calls of a tenant, over the whole fleet; no limit by default.
        burst_requests: How many of them may begin at once.
        are_named: Whether logs and metrics name tenants, whose number has no bound.
    """

    daily_usd: Usd | None = None
    monthly_usd: Usd | None = None
    requests_per_second: PositiveFloat | None = None
    burst_requests: PositiveInt = 1
    are_named: bool = False

    @property
    def rate(self) -> str:
        """The rate as ``call_limits.lua`` takes it; empty without a limit."""
        return "" if self.requests_per_second is None else f"{self.requests_per_second!r} {self.burst_requests}"


class MetricsSection(Table):
    """``[metrics]``: the endpoint of each worker for Prometheus and orchestrators.

    Attributes:
        port: The port of metrics and health; 0 picks a free one and logs it; off by default.
        address: The address to listen at.
    """

    port: Annotated[int, Field(ge=0, le=65_535)] | None = None
    address: str = "127.0.0.1"


class ServeSection(Table):
    """``[serve]``: the HTTP door, ``dspyq serve``.

    Attributes:
        host: The address to listen at. Without keys, only one of this machine.
        port: The port of the API; 0 picks a free one and logs it.
        metrics_port: The port of metrics, liveness and readiness, at ``metrics.address``; 0 picks a free one and logs
            it. With several processes, each has a page of its own at one of the ports that follow.
        workers: Number of server processes, which share the port.
        authentication: ``keys``, or ``none``: all who reach the port may ask.
        keys: Keys that the file states by their hashes, beside those that ``dspyq keys`` keeps in Redis.
        root_path: The path under which a proxy serves the API, as in ``/dspyq``, where it strips that path.
        wait_seconds: The longest that a request waits for its answer, and how long it does by default. After that it is
            answered with 202 and the place where the answer will be.
        most_waiting: The most requests that wait in one process; further ones are refused with 503.
        max_queued: Number of jobs in a variant's queue from which on new questions are refused with 503.
        max_rows: The most rows of one request for many predictions.
        max_body_bytes: The most bytes of a request's body; a program can have its own.
        header_seconds: The longest that a client may take to send the head of a request.
        body_seconds: The longest that a client may take to send its body.
        keep_alive_seconds: How long a connection without a request stays open.
        on_hangup: What becomes of the prediction of a client that hangs up while it waits: it goes on, ``finish``, or
            is withdrawn, ``cancel``.
        hangup_seconds: How long the client of a stream that it asked for may be gone before its call is withdrawn.
        heartbeat_seconds: Time between two signs of life in a stream in which nothing else comes.
        drain_seconds: How long a server that is to end still accepts connections, while ``/readyz`` is 503.
        cors_origins: Origins whose pages may ask, as in ``https://app.example.com``; each is written out.
        trusted_proxies: Addresses or networks of proxies whose ``X-Forwarded-For`` and ``X-Forwarded-Proto`` count.
        show_errors: Whether the texts of programs' exceptions are in answers; else their types alone.
        docs: Whether ``/docs`` is a page with a form for each program.
        public_docs: Whether ``/openapi.json``, and so the docs page, shows all programs to clients without a key.
    """

    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8080
    metrics_port: Annotated[int, Field(ge=0, le=65_535)] = 9090
    workers: Annotated[int, Field(ge=1, le=1024)] = 1
    authentication: Literal["keys", "none"] = "keys"
    keys: dict[Name, StatedKey] = Field(default_factory=dict)
    root_path: Annotated[
        str, Field(pattern=form(r"^(/[A-Za-z0-9._~-]+)*$", "begin with a / and end without one, as /api"))
    ] = ""
    wait_seconds: Annotated[float, Field(ge=0, le=3600)] = 30.0
    most_waiting: PositiveInt = 5000
    max_queued: PositiveInt = 100_000
    max_rows: PositiveInt = 1000
    max_body_bytes: PositiveInt = 1024 * 1024
    header_seconds: PositiveFloat = 5.0
    body_seconds: PositiveFloat = 10.0
    keep_alive_seconds: PositiveFloat = 60.0
    on_hangup: Literal["finish", "cancel"] = "finish"
    hangup_seconds: Annotated[float, Field(ge=0)] = 2.0
    heartbeat_seconds: PositiveFloat = 15.0
    drain_seconds: Annotated[float, Field(ge=0)] = 5.0
    cors_origins: tuple[Annotated[str, AfterValidator(check_origin)], ...] = ()
    trusted_proxies: tuple[Annotated[str, AfterValidator(check_network)], ...] = ()
    show_errors: bool = False
    docs: bool = True
    public_docs: bool = False


class EncryptionSection(Table):
    """``[encryption]``: the keys that seal content, from one of three places; none by default.

    Programs with ``encrypt`` use them. Such a place holds lines ``seal ID KEY`` and ``index ID KEY``, as ``dspyq
    encryption new-key`` prints them.

    Attributes:
        keys_file: A file that its user alone can read; a change of it counts within a second.
        keys_env: An environment variable.
        key_command: A command that prints the lines, as a KMS's own tool does; it runs at start, and again for an
            unknown key, at most once a minute.
        index_units: Whether the questions of each unit are found again, for ``dspyq forget --unit``: an index of keyed
            hashes, at a round trip more for a call that states a unit.
    """

    keys_file: Annotated[str, Field(min_length=1)] | None = None
    keys_env: Variable | None = None
    key_command: Annotated[str, Field(min_length=1)] | None = None
    index_units: bool = False

    @model_validator(mode="after")
    def _has_one_source(self) -> EncryptionSection:
        if len([each for each in (self.keys_file, self.keys_env, self.key_command) if each is not None]) > 1:
            raise ValueError("state one of keys_file, keys_env and key_command")
        return self

    @property
    def is_on(self) -> bool:
        """True if there are keys."""
        return any((self.keys_file, self.keys_env, self.key_command))


class LoggingSection(Table):
    """``[logging]``: the log on standard error, and in Loki.

    Attributes:
        include_content: Whether inputs, answers and exception texts may appear in logs, events and Flower.
        level: The lowest level that is logged; ``celery worker -l`` overrides it.
        format: ``json``, a line for each entry; ``console``, for people; ``auto``, ``console`` in a terminal only.
        service_name: The service named in entries and traces.
        producer_entries: Whether producers log each answer from the cache.
        loki_url: A Loki server that entries are pushed to as well; off by default.
        loki_tenant: The tenant of a Loki that has several.
        loki_authorization_env: The environment variable that holds the ``Authorization`` header for Loki.
    """

    include_content: bool = False
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    format: Literal["auto", "json", "console"] = "auto"
    service_name: Annotated[str, Field(min_length=1)] = "dspyq"
    producer_entries: bool = False
    loki_url: Annotated[str, AfterValidator(check_address)] | None = None
    loki_tenant: str | None = None
    loki_authorization_env: Variable | None = None


class TracingSection(Table):
    """``[tracing]``: OpenTelemetry's spans of predictions and their model calls.

    Attributes:
        enabled: Whether there are any; where left out, if there is an endpoint.
        endpoint: Where OTLP is taken over HTTP, as in ``http://127.0.0.1:4318``. Left out, spans go to the tracer
            provider that the process has configured.
        service_name: The service named in spans; by default ``logging.service_name``.
        sample_ratio: The part of traces begun here that is recorded.
    """

    enabled: bool | None = None
    endpoint: Annotated[str, AfterValidator(check_collector)] | None = None
    service_name: str | None = None
    sample_ratio: Annotated[float, Field(ge=0, le=1)] = 1.0

    @property
    def is_on(self) -> bool:
        """True if spans are recorded."""
        return self.endpoint is not None if self.enabled is None else self.enabled
