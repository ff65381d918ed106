"""An embedded language model behind an OpenAI-compatible endpoint: llama.cpp in a process of its own, on the CPU.

``python -m dspyq.stack.embedded.model --port 8080`` serves it alone.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from dspyq.core.private import open_private
from dspyq.errors import DspyqError
from dspyq.stack.embedded import loopback, weights
from dspyq.stack.embedded.log import last_lines
from dspyq.stack.embedded.progress import fetch_weights_visibly
from dspyq.stack.embedded.supervised_process import SupervisedProcess

#: Number of concurrent requests; more wait.
SLOTS = 2
TOKENS_PER_SLOT = 2048
#: Threads of one model wait for each other at every layer, so on a busy core each waits for the slowest: two threads
#: on two busy cores were six times slower than one.
MOST_THREADS = 2
READY_TIMEOUT_SECONDS = 60.0
_POLL_SECONDS = 0.02


class ModelNotStarted(DspyqError):
    """The model's server ended or did not answer in time; the message contains its last output."""


class EmbeddedModel(SupervisedProcess):
    """The running embedded model.

    Args:
        weights_file: Its weights, as ``dspyq.stack.embedded.weights`` returns them.
        port: The loopback port; a free one where left out.
        log: File of its log; none where left out.

    Attributes:
        name: The model as DSPy writes it.
        api_base: The endpoint's URL.
        ready_seconds: Time that it took to load.

    Raises:
        ModelNotStarted: If the port is taken or the weights do not load.
    """

    name = f"openai/{weights.NAME}"

    def __init__(self, weights_file: Path, *, port: int | None = None, log: Path | None = None) -> None:
        started = time.monotonic()
        port = port or loopback.free_port()
        if not loopback.is_free(port):  # else the other server's answer would count as ours
            raise ModelNotStarted(f"the embedded model's port {port} is taken")
        self.api_base = f"http://{loopback.ADDRESS}:{port}/v1"
        command = [sys.executable, "-m", __name__, "--port", str(port), "--weights", str(weights_file)]
        with open(log, "a+b", opener=open_private) if log else tempfile.TemporaryFile() as output:
            super().__init__(command, output=output)
            while not loopback.answers_http(port, "/health"):
                if time.monotonic() - started > READY_TIMEOUT_SECONDS or self.poll() is not None:
                    self.close()
                    said = " ".join(last_lines(output, 1))
                    raise ModelNotStarted(f"the embedded model on port {port} did not start: {said}")
                time.sleep(_POLL_SECONDS)
        self.ready_seconds = time.monotonic() - started


def serve(weights_file: Path, port: int, address: str = loopback.ADDRESS) -> None:
    """Serve the model in this process until ``SIGTERM`` or ``SIGINT``."""
    import xllamacpp  # noqa: PLC0415 - only the process that runs llama.cpp loads it

    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # before llama.cpp starts threads, which inherit it
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(weights_file)
    parameters.model_alias = {weights.NAME}
    parameters.hostnames = [address]
    parameters.port = port
    parameters.ui = False
    parameters.n_parallel = SLOTS
    parameters.n_ctx = SLOTS * TOKENS_PER_SLOT
    parameters.cpuparams.n_threads = max(1, min(MOST_THREADS, (os.cpu_count() or 1) // 2))
    server = xllamacpp.Server(parameters)
    signal.sigwait(ends)
    del server  # this ends its threads


def main() -> None:
    """Read the arguments and serve; missing weights are downloaded."""
    parser = argparse.ArgumentParser(description="Serve the embedded model behind an OpenAI-compatible endpoint.")
    parser.add_argument("--port", type=int, default=8080, help="the port (8080)")
    parser.add_argument("--address", default=loopback.ADDRESS, help="where to listen (this machine alone)")
    parser.add_argument("--weights", type=Path, help="its weights; found or fetched where left out")
    arguments = parser.parse_args()
    try:
        weights_file = arguments.weights or fetch_weights_visibly(Console(stderr=True))
    except DspyqError as error:
        sys.exit(f"dspyq: {error}")
    serve(weights_file, arguments.port, arguments.address)


if __name__ == "__main__":
    main()
