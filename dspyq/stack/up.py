"""``dspyq up``: Redis, a model, workers and Flower on this machine, until they are stopped."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rich.console import Console
from rich.text import Text

from dspyq.config.secrets import scrub_shapes
from dspyq.config.settings import DEFAULT_FILE, Settings, get_settings, load_settings
from dspyq.console.output import PlainConsole
from dspyq.console.steps import Steps
from dspyq.core.private import make_private_folder, open_private
from dspyq.core.redis_address import parse_address
from dspyq.errors import ConfigurationError
from dspyq.stack.demo_configuration import embedded_model, write_demo_configuration
from dspyq.stack.embedded import loopback, require_extra
from dspyq.stack.embedded.exclusive import alone_in
from dspyq.stack.embedded.model import EmbeddedModel
from dspyq.stack.embedded.progress import fetch_weights_visibly
from dspyq.stack.embedded.supervised_process import SupervisedProcess
from dspyq.stack.embedded.valkey import Valkey
from dspyq.stack.embedded.weights import NAME
from dspyq.stack.processes import WORKER_COMMAND, StackFailed, describe_end, ended_by_sigterm, worker_answers
from dspyq.stack.procfile import Echo, read_procfile, start_process

#: Folder of Redis's data, of logs, and of the configuration if there is no other.
FOLDER = Path(".dspyq")
#: File with the URL of the embedded Redis, password included, for other terminals of its user.
_URL_FILE = FOLDER / "redis.url"
#: Preferred ports, used if free; 8080 is that of ``dspyq serve``.
REDIS_PORT, MODEL_PORT, FLOWER_PORT = 6379, 8081, 5555
_PRINT_SECONDS = 0.2
#: Time for a worker to store and close after its predictions' time is over; it ends by itself earlier.
_CLOSE_SECONDS = 15.0
#: Time of an end after which a message explains it.
_EXPLAINED_AFTER_SECONDS = 1.0
_REDIS_SETTINGS = frozenset({"redis_url", "broker_url", "result_url"})


def run_up() -> None:
    """Run the stack until Ctrl-C, ``SIGTERM`` or the end of one of its processes.

    The configuration is the file ``DSPYQ_CONFIG`` names, or ``dspyq.toml`` here; where there is none, the demo's, with
    the embedded model. Redis is an embedded one that keeps its data, unless the configuration names another. Workers,
    Flower and whatever else there is come from the ``Procfile`` here.

    Raises:
        ConfigurationError: If the configuration cannot be used, or is in use by another ``dspyq up``.
        StackFailed: If a process ended by itself; all others are ended then too.
    """
    require_extra()
    console = PlainConsole()
    console.print(Text.assemble("\n", ("dspyq up", "bold"), "  Ctrl-C ends everything\n"))
    with ended_by_sigterm(), _alone():
        try:
            with ExitStack() as running:
                _Stack(running, console).run()
        except KeyboardInterrupt:
            console.print("\nEverything has ended.")


@contextmanager
def _alone() -> Iterator[None]:
    """Hold the folder: two servers would ruin one append-only file."""
    with ExitStack() as held:
        try:
            make_private_folder(FOLDER)
            held.enter_context(alone_in(FOLDER, waits=False))
        except BlockingIOError:
            raise ConfigurationError(f"another dspyq up runs in {Path.cwd()}: end it first") from None
        except OSError as error:
            raise ConfigurationError(f"cannot write to {FOLDER.resolve()}: {error.strerror}") from None
        yield


class _Stack:
    """The processes, ended in reverse order of their start, so that a worker can hand its jobs back to Redis.

    Args:
        running: The exit stack that ends them.
        console: The console for their start.
    """

    def __init__(self, running: ExitStack, console: Console) -> None:
        self._running = running
        self._console = console
        self._steps = Steps(console)
        self._logs: dict[str, Path] = {}
        self._processes: dict[str, SupervisedProcess] = {}

    def run(self) -> None:
        """Start everything and print its output; never return.

        Raises:
            ConfigurationError: If the configuration cannot be used.
            StackFailed: If a process ends by itself.
        """
        path = _configuration() or self._start_model()
        os.environ["DSPYQ_CONFIG"] = str(path)
        settings = load_settings(path)
        if settings.logging.format == "auto":
            os.environ["DSPYQ_LOGGING__FORMAT"] = "console"  # through a pipe, but shown here
        if settings.model_fields_set & _REDIS_SETTINGS:
            self._steps.ready("redis", str(parse_address(settings.jobs_url)), "as configured")
        else:
            os.environ["DSPYQ_REDIS_URL"] = self._start_redis()
        self._run_procfile(grace_seconds=settings.delivery.shutdown_grace_seconds + _CLOSE_SECONDS)

    def _start_model(self) -> Path:
        """Start the embedded model and return the configuration that uses it."""
        weights_file = fetch_weights_visibly(self._console)
        with self._steps.starting("model"):
            port = loopback.free_port(MODEL_PORT)
            model = self._running.enter_context(EmbeddedModel(weights_file, port=port, log=self._log("model")))
        self._processes["model"] = model
        self._steps.ready("model", model.api_base, NAME, model.ready_seconds)
        return write_demo_configuration(FOLDER, embedded_model(model.api_base))

    def _start_redis(self) -> str:
        """Start Valkey and return its URL."""
        with self._steps.starting("redis"):
            port = loopback.free_port(REDIS_PORT)
            valkey = Valkey(port=port, data_folder=FOLDER / "redis", log=self._log("redis"))
            self._running.enter_context(valkey)
        self._processes["redis"] = valkey
        self._steps.ready("redis", str(parse_address(valkey.url)), f"Valkey {valkey.version}", valkey.ready_seconds)
        with open(_URL_FILE, "w", opener=open_private, encoding="utf-8") as file:
            file.write(valkey.url)
        return valkey.url

    def _log(self, name: str) -> Path:
        log = self._logs[name] = FOLDER / f"{name}.log"
        log.unlink(missing_ok=True)
        return log

    def _run_procfile(self, *, grace_seconds: float) -> None:
        commands = read_procfile()
        echo = Echo(commands)
        self._running.callback(echo.print_rest)
        flower_port = loopback.free_port(FLOWER_PORT)
        serve = get_settings().serve
        door_port, metrics_port = loopback.free_port(serve.port), loopback.free_port(serve.metrics_port)
        variables = {
            "FLOWER_PORT": str(flower_port),
            "DSPYQ_SERVE__PORT": str(door_port),
            "DSPYQ_SERVE__METRICS_PORT": str(metrics_port),
        }
        started = time.monotonic()
        for name, command in commands.items():
            process = start_process(command, variables, grace_seconds=grace_seconds)
            self._running.callback(self._end, name, process, echo)
            self._processes[name] = process
            echo.follow(name, process)
        self._watch(echo, until=worker_answers)
        self._steps.ready("worker", WORKER_COMMAND, "", time.monotonic() - started)
        if "serve" in commands:
            self._watch(echo, until=lambda: loopback.answers_http(door_port, "/healthz"))
            self._steps.ready("serve", f"http://{loopback.ADDRESS}:{door_port}/docs", "HTTP")
        if "flower" in commands:
            self._watch(echo, until=lambda: loopback.answers_http(flower_port, "/healthcheck"))
            self._steps.ready("flower", f"http://{loopback.ADDRESS}:{flower_port}", "read-only")
        self._console.print(_how_to_ask(), highlight=False, soft_wrap=True)
        self._watch(echo, until=lambda: False)

    def _end(self, name: str, process: SupervisedProcess, echo: Echo) -> None:
        """Stop a process and print its output meanwhile; another Ctrl-C kills it at once."""
        process.end()
        began, is_explained = time.monotonic(), False
        try:
            while process.poll() is None:
                echo.print_for(_PRINT_SECONDS)
                if not is_explained and time.monotonic() - began > _EXPLAINED_AFTER_SECONDS:
                    self._console.print(f"\n{name} may finish what it runs; Ctrl-C again ends it at once.\n")
                    is_explained = True
        except (KeyboardInterrupt, SystemExit):
            process.send_signal(signal.SIGKILL)
            raise
        finally:
            process.close()

    def _watch(self, echo: Echo, until: Callable[[], bool]) -> None:
        """Print the processes' output until a condition holds.

        Raises:
            StackFailed: If one of them ends.
        """
        while not until():
            echo.print_for(_PRINT_SECONDS)
            for name, process in self._processes.items():
                if (status := process.poll()) is not None:
                    self._console.print(f"\n{name} has ended, so everything else is ended too.\n")
                    raise StackFailed(describe_end(name, status, self._logs.get(name)))


def _configuration() -> Path | None:
    """Return the user's configuration file, if there is one."""
    if named := os.environ.get("DSPYQ_CONFIG"):
        return Path(named)
    return Path(DEFAULT_FILE) if Path(DEFAULT_FILE).exists() else None


def _how_to_ask() -> str:
    """Return instructions for calling a program from another terminal."""
    settings = get_settings()
    variables = [f"DSPYQ_CONFIG={os.environ['DSPYQ_CONFIG']}"]
    if (url := os.environ.get("DSPYQ_REDIS_URL")) and url != Settings.model_fields["redis_url"].default:
        is_ours = _URL_FILE.exists() and _URL_FILE.read_text(encoding="utf-8") == url
        shown = f'"$(cat {_URL_FILE})"' if is_ours else scrub_shapes(url)
        variables.append(f"DSPYQ_REDIS_URL={shown}")
    lines = ["", "  Ask from another terminal, in this folder:", f"    export {' '.join(variables)}"]
    for program in settings.programs.values():
        if program.unstated:
            lines.append(f"    ({program.unstated})")
            continue
        inputs = " ".join(f'{field.name}="…"' for field in program.signature.inputs)
        lines.append(f"    dspyq predict --program {program.name} {inputs}")
    return "\n".join([*lines, ""])
