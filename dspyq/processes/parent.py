"""The parent of several workers: starts them, passes signals on, and starts those again that end by themselves."""

from __future__ import annotations

import errno
import os
import selectors
import signal
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import IO

from dspyq.core import systemd
from dspyq.errors import ConfigurationError
from dspyq.processes.output import WorkerOutput
from dspyq.processes.pages import ADDRESS
from dspyq.processes.worker_process import WorkerProcess

_TICK_SECONDS = 0.5
#: What a worker takes to close after its grace, and what it may be late.
_CLOSE_SECONDS = 20.0
#: After a cold shutdown, until a worker is killed.
_COLD_SECONDS = 10.0
#: Before the next attempt to start a worker where the machine has no room for it.
_NO_RESOURCES_SECONDS = 10.0
_CHUNK_BYTES = 65_536
_WARM = (signal.SIGTERM, signal.SIGINT)
_SIGNALS = (*_WARM, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD)


class Parent:
    """Runs workers until it is asked to end, or until none can start.

    Args:
        workers: The workers.
        output: Where their lines go.
        grace_seconds: How long running predictions may continue after SIGTERM.
        reloads: Whether SIGHUP starts the workers again; in a terminal it means that the terminal is gone.
    """

    def __init__(
        self, workers: Sequence[WorkerProcess], output: WorkerOutput, grace_seconds: float, *, reloads: bool
    ) -> None:
        self._workers = workers
        self._output = output
        self._grace_seconds = grace_seconds
        self._reloads = reloads
        self._selector = selectors.DefaultSelector()
        self._received: list[int] = []
        self._is_starting = True
        self._status = 0
        self._kill_at: float | None = None
        self._is_cold = False
        self._to_replace: list[WorkerProcess] = []

    def run(self) -> int:
        """Run them, and return the exit status: 0 where they ended because they were asked to."""
        self._connect()
        try:
            while self._kill_at is None or any(worker.is_running for worker in self._workers):
                self._step()
        finally:
            for worker in self._workers:
                worker.send(signal.SIGKILL)
                worker.close()
        return self._status

    def _connect(self) -> None:
        """Wake the loop by each signal, and by each worker that is ready."""
        woken, self._waking = socket.socketpair()
        for end in (woken, self._waking):
            end.settimeout(0)
        signal.set_wakeup_fd(self._waking.fileno(), warn_on_full_buffer=False)
        for number in _SIGNALS:
            signal.signal(number, lambda number, _: self._received.append(number))
        self._selector.register(woken, selectors.EVENT_READ, lambda: _drain(woken))
        for worker in self._workers:
            reading = worker.ready_socket
            self._selector.register(reading, selectors.EVENT_READ, lambda worker=worker: self._note_state(worker))

    def _step(self) -> None:
        now = time.monotonic()
        for worker in self._workers:
            if worker.start_at is not None and worker.start_at <= now and self._kill_at is None:
                self._start(worker)
        due = [worker.start_at for worker in self._workers if worker.start_at is not None]
        wait_seconds = min([_TICK_SECONDS, *(max(0.0, at - now) for at in due if self._kill_at is None)])
        for key, _ in self._selector.select(wait_seconds):
            key.data()
        while self._received:
            self._handle(self._received.pop(0))
        self._note_ends()
        self._replace_next()
        if self._kill_at is not None and time.monotonic() > self._kill_at:
            self._send_all(signal.SIGKILL)

    def _start(self, worker: WorkerProcess) -> None:
        try:
            process = worker.start()
        except OSError as error:
            worker.start_at = time.monotonic() + _NO_RESOURCES_SECONDS
            text = f"{worker.name} could not be started: {error.strerror}; again in {_NO_RESOURCES_SECONDS:g} s"
            self._output.report("worker_not_started", text, worker=worker.name, error=error.strerror)
            return
        for stream, descriptor in ((process.stdout, 1), (process.stderr, 2)):
            if stream is not None:
                os.set_blocking(stream.fileno(), False)
                read = _Reader(self._selector, self._output, worker.name, stream, descriptor)
                self._selector.register(stream, selectors.EVENT_READ, read)

    def _note_state(self, worker: WorkerProcess) -> None:
        with suppress(BlockingIOError):
            if b"READY=1" not in worker.ready_socket.recv(4096).split(b"\n") or not worker.is_running:
                return
            worker.is_ready = True
            if self._is_starting:  # the configuration is good
                self._is_starting = False
                self._output.release()
            if all(each.is_ready for each in self._workers):
                number = len(self._workers)
                self._output.report("workers_ready", f"workers are ready: {number}", workers=number)
                systemd.notify("READY=1")

    def _note_ends(self) -> None:
        for worker in self._workers:
            if worker.is_running and worker.process is not None and (status := worker.process.poll()) is not None:
                self._read_rest(worker)
                self._note_end(worker, status)

    def _note_end(self, worker: WorkerProcess, status: int) -> None:
        wait_seconds = worker.note_end()
        if self._kill_at is not None:
            return
        if self._is_starting and status > 0:  # its log has the reason, and the others would fail alike
            self._output.show_failure(worker.name)
            self._status = 1
            self._begin_end()
            return
        worker.start_at = time.monotonic() + wait_seconds
        if not wait_seconds:
            return
        what = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        text = f"{worker.name} {what}; it is started again in {wait_seconds:g} s"
        fields = {"worker": worker.name, "status": status, "wait_seconds": wait_seconds}
        self._output.report("worker_ended", text, **fields)

    def _read_rest(self, worker: WorkerProcess) -> None:
        """Read the last that a worker wrote; what it has started may keep its output open."""
        for stream in (worker.process.stdout, worker.process.stderr) if worker.process else ():
            with suppress(KeyError, ValueError):  # it was closed before
                read = self._selector.get_key(stream).data  # type: ignore[arg-type]  # None was never registered
                while read():
                    pass

    def _handle(self, number: int) -> None:
        is_repeated = number in _WARM and self._kill_at is not None
        if number == signal.SIGQUIT or is_repeated:
            self._end_cold()
        elif number in _WARM or (number == signal.SIGHUP and not self._reloads):
            text = f"the workers end; what they run may take {self._grace_seconds:g} s"
            self._output.report("workers_ending", text, grace_seconds=self._grace_seconds)
            self._begin_end()
        elif number == signal.SIGHUP and self._kill_at is None:
            self._to_replace = [worker for worker in self._workers if worker.is_running]
        elif number == signal.SIGUSR1:
            self._send_all(signal.SIGUSR1)

    def _begin_end(self) -> None:
        """End the workers warmly: what runs may finish within the grace."""
        self._kill_at = time.monotonic() + self._grace_seconds + _CLOSE_SECONDS
        systemd.notify("STOPPING=1")
        self._send_all(signal.SIGTERM)

    def _end_cold(self) -> None:
        """End the workers without waiting for what they run; a third signal kills them."""
        if self._is_cold:
            self._send_all(signal.SIGKILL)
        else:
            self._send_all(signal.SIGQUIT)
        self._is_cold = True
        self._kill_at = min(self._kill_at or float("inf"), time.monotonic() + _COLD_SECONDS)

    def _replace_next(self) -> None:
        """Have the next worker end and start again, once all others are ready: the fleet never stands still."""
        is_settled = all(worker.is_running and worker.is_ready for worker in self._workers)
        if self._to_replace and is_settled and self._kill_at is None:
            worker = self._to_replace.pop(0)
            worker.is_replaced = True
            worker.is_ready = False
            worker.send(signal.SIGTERM)

    def _send_all(self, number: signal.Signals) -> None:
        for worker in self._workers:
            worker.send(number)


class _Reader:
    """Passes on what a worker writes into one of its pipes."""

    def __init__(
        self, selector: selectors.BaseSelector, output: WorkerOutput, worker: str, stream: IO[bytes], descriptor: int
    ) -> None:
        self._selector = selector
        self._output = output
        self._worker = worker
        self._stream = stream
        self._descriptor = descriptor

    def __call__(self) -> bool:
        """Return True if there may be more to read."""
        try:
            data = os.read(self._stream.fileno(), _CHUNK_BYTES)
        except BlockingIOError:
            return False
        self._output.write(self._worker, self._descriptor, data)
        if not data:
            self._selector.unregister(self._stream)
            self._stream.close()
        return bool(data)


def check_ports(ports: Sequence[int], setting: str = "metrics.port") -> None:
    """Refuse to start where workers could not serve their pages.

    Args:
        ports: The ports of their pages.
        setting: The setting of the port before them.

    Raises:
        ConfigurationError: If another process listens at one of these ports.
    """
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((ADDRESS, port))
            except (OSError, OverflowError) as error:
                reason = os.strerror(getattr(error, "errno", None) or errno.EADDRNOTAVAIL)
                taken = f"{len(ports)} workers take the ports" if len(ports) > 1 else "the worker takes the port"
                raise ConfigurationError(
                    f"{setting}: a worker cannot listen at {ADDRESS}:{port}: {reason}; {taken} that "
                    f"{'follow' if len(ports) > 1 else 'follows'} {setting}: choose one with as many free after it, or "
                    "0 for any"
                ) from None


def free_ports(number: int) -> list[int]:
    """Return ports that are free now."""
    probes = [socket.socket() for _ in range(number)]
    try:
        for probe in probes:
            probe.bind((ADDRESS, 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def _drain(woken: socket.socket) -> None:
    with suppress(BlockingIOError):
        while woken.recv(4096):
            pass
