"""``dspyq demo``: the full path of a prediction on this machine: Redis, a model, a worker, two variants."""

from __future__ import annotations

import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from dspyq.core.redis_address import parse_address
from dspyq.core.scratch import scratch_folder
from dspyq.errors import ConfigurationError, DspyqError
from dspyq.stack.demo_configuration import DemoModel, embedded_model, real_model, write_demo_configuration
from dspyq.stack.demo_door import DOOR_COMMAND, ask_door, open_door
from dspyq.stack.demo_page import JsonPage, Landed, Page, TextPage
from dspyq.stack.embedded import require_extra
from dspyq.stack.embedded.model import EmbeddedModel
from dspyq.stack.embedded.progress import fetch_weights_visibly
from dspyq.stack.embedded.supervised_process import SupervisedProcess
from dspyq.stack.embedded.valkey import Valkey
from dspyq.stack.embedded.weights import NAME
from dspyq.stack.processes import GRACE_SECONDS, WORKER_COMMAND, StackFailed, ended_by_sigterm, wait_for_worker

if TYPE_CHECKING:
    from dspyq.cache.statistics import VariantStatistics

REVIEWS = (
    "The battery lasts two full days and charging takes minutes.",
    "It stopped working after a week and support never answered.",
    "Beautiful sound, and my ears do not hurt after hours of wearing them.",
    "The zipper broke on the first trip. A waste of money.",
    "The best coffee grinder I have owned: quick, and easy to clean.",
    "It arrived scratched, late, and without the cable.",
    "My kids love it and so do I. We use it every weekend.",
    "The fabric feels cheap and the colour faded in the first wash.",
    "Setup took two minutes and it has run flawlessly since.",
    "The app crashes every time I open the camera.",
    "Warm, light, and it fits perfectly. I bought a second one.",
    "Far too loud to sleep next to. I am sending it back.",
)
ROUNDS = 2
#: The review that is asked again over HTTP; its line fits into 80 columns.
_REVIEW_OVER_HTTP = REVIEWS[5]
_PROGRAM = "sentiment"
ANSWER_TIMEOUT_SECONDS = 120.0
#: Hits in a process's memory are counted once a second.
_STATISTICS_TIMEOUT_SECONDS = 3.0
_POLL_SECONDS = 0.1


class PredictionsFailed(DspyqError):
    """Some of the demo's predictions failed."""


def run_demo(*, model: str | None, api_base: str | None, api_key_env: str | None, as_json: bool) -> None:
    """Run the demo: product reviews through a program with two variants, twice, the second time from the cache.

    Args:
        model: A real model as DSPy names it; the small embedded one where left out.
        api_base: Its endpoint; the provider's own where left out.
        api_key_env: The environment variable that holds its key.
        as_json: Whether to print JSON lines instead of tables.

    Raises:
        ConfigurationError: If the model cannot be used.
        StackFailed: If a part of the stack does not start.
        PredictionsFailed: If predictions failed.
    """
    require_extra()
    if not model and (api_base or api_key_env):
        raise ConfigurationError("--api-base and --api-key-env are about the model that --model names")
    page = JsonPage() if as_json else TextPage()
    page.begin()
    kept_after = (PredictionsFailed, StackFailed)
    with ended_by_sigterm(), scratch_folder("demo", kept_after=kept_after) as folder, ExitStack() as running:
        asked = real_model(model, api_base, api_key_env) if model else _start_model(running, page, folder)
        log = folder / "worker.log"
        _start_worker(running, page, folder, asked, log)
        landed = list(_run_rounds(page))
        statistics = _statistics(len(landed))
        if any(call.prediction is not None for call in landed):
            _ask_over_http(running, page, folder)
        page.end(statistics, asked)
        if failed := [call for call in landed if call.prediction is None]:
            raise PredictionsFailed(
                f"{len(failed)} of {len(landed)} predictions failed, the first with {failed[0].failure}; "
                f"the worker's log, until the next demo: {log}"
            )


def _run_rounds(page: Page) -> Iterator[Landed]:
    for number in range(1, ROUNDS + 1):
        page.begin_round(number, len(REVIEWS))
        answers = 0
        for landed in _ask_at_once(REVIEWS):
            page.show(number, landed)
            answers += landed.prediction is not None
            yield landed
        if not answers:
            return  # then the cache has nothing


def _ask_over_http(running: ExitStack, page: Page, folder: Path) -> None:
    """Open an HTTP door, and ask one of the reviews again through it."""
    started = time.monotonic()
    port = running.enter_context(open_door(folder / "serve.log"))
    page.show_http(DOOR_COMMAND, time.monotonic() - started, ask_door(port, _PROGRAM, {"text": _REVIEW_OVER_HTTP}))


def _start_model(running: ExitStack, page: Page, folder: Path) -> DemoModel:
    weights_file = fetch_weights_visibly(page.progress)
    with page.steps.starting("model"):
        model = running.enter_context(EmbeddedModel(weights_file, log=folder / "model.log"))
    page.steps.ready("model", model.api_base, NAME, model.ready_seconds)
    return embedded_model(model.api_base)


def _start_worker(running: ExitStack, page: Page, folder: Path, model: DemoModel, log: Path) -> None:
    """Start Redis and a worker, and configure this process to use both."""
    with page.steps.starting("redis"):
        valkey = running.enter_context(Valkey(log=folder / "redis.log"))
    page.steps.ready("redis", str(parse_address(valkey.url)), f"Valkey {valkey.version}", valkey.ready_seconds)
    # At the end Redis stops before this process, whose listeners need not report it.
    running.callback(logging.getLogger("dspyq").setLevel, logging.CRITICAL)
    for name in [name for name in os.environ if name.startswith("DSPYQ_")]:
        del os.environ[name]  # settings of the user's own project do not apply to the demo
    os.environ |= {"DSPYQ_CONFIG": str(write_demo_configuration(folder, model)), "DSPYQ_REDIS_URL": valkey.url}
    from dspyq.cache.memory import process_cache  # noqa: PLC0415 - its import must come after the settings' environment

    process_cache()  # its subscription must be active before it keeps an answer, so it starts before the first call
    started = time.monotonic()
    with page.steps.starting("worker"), log.open("wb") as output:
        command = [sys.executable, "-m", *WORKER_COMMAND.split()]
        worker = running.enter_context(SupervisedProcess(command, output=output, grace_seconds=GRACE_SECONDS))
        wait_for_worker(worker, log)
    page.steps.ready("worker", WORKER_COMMAND, f"{model.concurrency} threads", time.monotonic() - started)


def _ask_at_once(reviews: Sequence[str]) -> Iterator[Landed]:
    """Request all predictions at once and yield each as it arrives."""
    landed: queue.Queue[Landed] = queue.Queue()
    for review in reviews:
        # Daemons, unlike an executor's threads, are not waited for when the demo is interrupted.
        threading.Thread(target=_ask, args=(review, landed), daemon=True).start()
    for _ in reviews:
        yield landed.get()


def _ask(review: str, landed: queue.Queue[Landed]) -> None:
    from dspyq import predict  # noqa: PLC0415 - as in _start_worker

    started = time.perf_counter()
    try:
        prediction = predict.delay(text=review).get(timeout=ANSWER_TIMEOUT_SECONDS)
    except Exception as error:  # noqa: BLE001 - shown as the result of this call
        landed.put(Landed(review, time.perf_counter() - started, error=error))
    else:
        landed.put(Landed(review, time.perf_counter() - started, prediction))


def _statistics(calls: int) -> list[VariantStatistics]:
    """Return each variant's statistics, once all calls are counted."""
    from dspyq.cache.statistics import variant_statistics  # noqa: PLC0415 - as in _start_worker

    deadline = time.monotonic() + _STATISTICS_TIMEOUT_SECONDS
    while True:
        statistics = variant_statistics()
        if sum(variant.calls for variant in statistics) >= calls or time.monotonic() > deadline:
            return statistics
        time.sleep(_POLL_SECONDS)
