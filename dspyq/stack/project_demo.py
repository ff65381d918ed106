"""``dspyq demo COMMAND``: a project's own programs on an embedded Redis and model, while a command of it runs."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from dspyq.config.settings import DEFAULT_FILE, Settings, get_settings, load_settings
from dspyq.console.output import PlainConsole
from dspyq.console.steps import Steps
from dspyq.core.redis_address import parse_address
from dspyq.core.runtime import current
from dspyq.core.scratch import scratch_folder
from dspyq.errors import ConfigurationError
from dspyq.stack.demo_configuration import embedded_model
from dspyq.stack.embedded import require_extra
from dspyq.stack.embedded.model import EmbeddedModel
from dspyq.stack.embedded.progress import fetch_weights_visibly
from dspyq.stack.embedded.supervised_process import SupervisedProcess
from dspyq.stack.embedded.valkey import Valkey
from dspyq.stack.embedded.weights import NAME, WeightsUnavailable
from dspyq.stack.processes import GRACE_SECONDS, WORKER_COMMAND, StackFailed, ended_by_sigterm, wait_for_worker
from dspyq.stack.stand_in import StandInModel

#: Keys taken from the embedded model's table; limits and temperature stay the project's.
_TAKEN = ("model", "api_base", "structured_outputs", "input_usd_per_million_tokens", "output_usd_per_million_tokens")


def run_project_demo(command: Sequence[str]) -> None:
    """Run a command of the project here, with Redis, a model and a worker that live as long as it does.

    The configuration is the project's; each of its models is replaced by the small embedded one, or by a stand-in
    with arbitrary answers if that cannot be downloaded.

    Args:
        command: The command and its arguments.

    Raises:
        ConfigurationError: If the configuration cannot be used.
        StackFailed: If a part of the stack does not start, or the command fails.
    """
    require_extra()
    path = Path(os.environ.get("DSPYQ_CONFIG") or DEFAULT_FILE)
    settings = load_settings(path)
    if not settings.programs:
        raise ConfigurationError(f"there is no program in {path}; write one, or leave the command out")
    console = PlainConsole()
    with ended_by_sigterm(), scratch_folder("demo") as folder, ExitStack() as running:
        steps = Steps(console)
        api_base = _start_model(running, console, steps, folder)
        with steps.starting("redis"):
            valkey = running.enter_context(Valkey(log=folder / "redis.log"))
        steps.ready("redis", str(parse_address(valkey.url)), f"Valkey {valkey.version}", valkey.ready_seconds)
        # At the end Redis stops before this process, whose listeners need not report it.
        running.callback(logging.getLogger("dspyq").setLevel, logging.CRITICAL)
        _use(settings, api_base)
        os.environ |= {"DSPYQ_CONFIG": str(path), "DSPYQ_REDIS_URL": valkey.url}
        current().forget(get_settings)
        _start_worker(running, steps, folder / "worker.log")
        console.print()
        _run(command)


def _start_model(running: ExitStack, console: Console, steps: Steps, folder: Path) -> str:
    """Start the embedded model, or the stand-in, and return its URL."""
    try:
        weights_file = fetch_weights_visibly(console)
    except WeightsUnavailable as error:
        reason = str(error).partition(";")[0]
        console.print(f"{reason}.\nA stand-in answers instead: its answers have the right form, and mean nothing.")
        stand_in = running.enter_context(StandInModel())
        steps.ready("model", stand_in.api_base, "a stand-in")
        return stand_in.api_base
    with steps.starting("model"):
        model = running.enter_context(EmbeddedModel(weights_file, log=folder / "model.log"))
    steps.ready("model", model.api_base, NAME, model.ready_seconds)
    return model.api_base


def _use(settings: Settings, api_base: str) -> None:
    """Replace every model of the configuration by the one at a URL, in this process and those it starts."""
    model = embedded_model(api_base)
    for name, configured in settings.models.items():
        for key in _TAKEN:
            os.environ[f"DSPYQ_MODELS__{name.upper()}__{key.upper()}"] = str(model.table[key])
        if configured.api_key_env:
            os.environ.setdefault(configured.api_key_env, "unused")
    for name in settings.programs:
        os.environ[f"DSPYQ_PROGRAMS__{name.upper()}__ADAPTER"] = model.adapter


def _start_worker(running: ExitStack, steps: Steps, log: Path) -> None:
    started = time.monotonic()
    with steps.starting("worker"), log.open("wb") as output:
        command = [sys.executable, "-m", *WORKER_COMMAND.split()]
        worker = running.enter_context(SupervisedProcess(command, output=output, grace_seconds=GRACE_SECONDS))
        wait_for_worker(worker, log)
    steps.ready("worker", WORKER_COMMAND, "", time.monotonic() - started)


def _run(command: Sequence[str]) -> None:
    """Run the command with this Python's programs found first."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    try:
        # By a shell's own search: subprocess would search this process's path.
        done = subprocess.run(["/usr/bin/env", *command], env={**os.environ, "PATH": path}, check=False)  # noqa: S603 - the user's command is what this is for
    except OSError as error:
        raise StackFailed(f"{command[0]} cannot be run: {error.strerror}") from None
    if done.returncode:
        raise StackFailed(f"{command[0]} ended with status {done.returncode}")
