"""Download of the embedded model with visible progress: a bar on a terminal, periodic lines elsewhere."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from dspyq.stack.embedded import weights

_LINE_SECONDS = 2.0


def fetch_weights_visibly(console: Console) -> Path:
    """Return the weights as ``fetch_weights`` does, and show the progress of a download.

    Raises:
        WeightsUnavailable: If they cannot be downloaded, or are not as published.
    """
    if found := weights.find_weights():
        return found
    size_megabytes = weights.DOWNLOAD_BYTES / 1e6
    console.print(f"Fetching the model, once: {weights.NAME}, {size_megabytes:.0f} MB, to {weights.cache_folder()}")
    return _with_bar(console) if console.is_terminal else _with_lines(console)


def _with_bar(console: Console) -> Path:
    columns = (TextColumn(" "), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(compact=True))
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=weights.DOWNLOAD_BYTES)
        return weights.fetch_weights(lambda done, total: progress.update(task, completed=done, total=total))


def _with_lines(console: Console) -> Path:
    started = told_at = time.monotonic()

    def tell(done_bytes: int, total_bytes: int) -> None:
        nonlocal told_at
        now = time.monotonic()
        if now - told_at < _LINE_SECONDS and done_bytes < total_bytes:
            return
        told_at = now
        speed = done_bytes / 1e6 / (now - started)
        console.print(f"  {done_bytes / 1e6:.0f} of {total_bytes / 1e6:.0f} MB, {speed:.1f} MB/s")

    return weights.fetch_weights(tell)
