"""``dspyq demo``: the whole way of a prediction on this machine, from nothing: Redis, a model, a worker, two variants."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from celery.exceptions import TimeoutError as CeleryTimeoutError
from rich.console import Console

from config.errors import DspyqError
from dspyq.demo_configuration import DemoModel, embedded_model, real_model, write_demo_configuration
from dspyq.demo_page import JsonPage, Page
from dspyq.embedded import require_extra
from dspyq.embedded.model import EmbeddedModel
from dspyq.embedded.progress import fetch_weights_visibly
from dspyq.embedded.tied import TiedProcess
from dspyq.embedded.valkey import Valkey
from dspyq.embedded.weights import NAME
from dspyq.processes import GRACE_SECONDS, StackFailed, ended_by_sigterm, wait_for_worker
from dspyq.steps import Steps

if TYPE_CHECKING:
    from producer import Prediction
    from producer.statistics import VariantStatistics

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
ANSWER_TIMEOUT_SECONDS = 120.0
#: Hits in a process's memory are counted once a second.
_STATISTICS_TIMEOUT_SECONDS = 3.0
_POLL_SECONDS = 0.1


class PredictionsFailed(DspyqError):
    """Some of the demo's predictions failed."""


@dataclass(frozen=True)
class Landed:
    """What came of one call.

    Attributes:
        review: What was asked.
        wait_seconds: How long its caller waited.
        prediction: The answer; None if it failed.
        error: What it failed with.
    """

    review: str
    wait_seconds: float
    prediction: Prediction | None = None
    error: Exception | None = None


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
    page = JsonPage() if as_json else Page()
    page.begin()
    with ended_by_sigterm(), _folder() as folder, ExitStack() as running:
        asked = real_model(model, api_base, api_key_env) if model else _start_model(running, page.progress, folder)
        log = _start_worker(running, page.progress, folder, asked)
        failures = 0
        for number in range(1, ROUNDS + 1):
            page.begin_round(number, len(REVIEWS))
            for landed in _ask_all():
                page.show(number, landed)
                failures += landed.prediction is None
        page.end(_statistics(), is_embedded=model is None)
        if failures:
            raise PredictionsFailed(f"{failures} of {ROUNDS * len(REVIEWS)} predictions failed; the worker's log: {log}")
