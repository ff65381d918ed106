"""``dspyq batch run … --detach``: the same command in the background, in a session of its own."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

from dspyq.console.output import console, print_error, print_errors, print_json
from dspyq.core.private import open_private
from dspyq.errors import BatchRefused
from dspyq.stack.processes import FAULT_MARK
from dspyq.store.clients import redis_errors

_LOOK_SECONDS = 0.05
_COULD_NOT_RUN = 2
#: Options that the background process does not get.
_OWN_OPTIONS = frozenset({"--detach", "--json"})


def run_detached(output: Path, *, as_json: bool) -> int:
    """Start the same command again without ``--detach`` and wait until it has begun.

    Its output goes to ``OUT.log``. It has begun when it holds the journal and the batch is in Redis.

    Args:
        output: OUT.
        as_json: True to print JSON.

    Returns:
        0 once it has begun; else its exit status, after its error was printed.
    """
    log = output.with_name(f"{output.name}.log")
    command = [sys.executable, "-m", "dspyq", *(each for each in sys.argv[1:] if each not in _OWN_OPTIONS)]
    try:
        with open(log, "ab", opener=open_private) as file:
            said_before = file.tell()
            # The child reads rows from standard input, and spools them before anything begins.
            process = subprocess.Popen(  # noqa: S603 - the user's own command
                command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
            )
    except OSError as error:
        print_error(f"cannot write {log}: {error.strerror}; choose another --output")
        return _COULD_NOT_RUN
    try:
        batch_id = _begun(process, output)
    except BaseException:  # Ctrl-C before it has begun: end it
        process.terminate()
        raise
    if batch_id is None:
        print_errors(_reason(log, said_before))
        return process.returncode
    _tell(batch_id, process.pid, log, as_json=as_json)
    return 0


def _begun(process: subprocess.Popen[bytes], output: Path) -> str | None:
    """Wait until a process works on a batch; return its id, or None where the process ended before."""
    while True:
        has_ended = process.poll() is not None
        facts = _facts(output)
        if facts.get("pid") == str(process.pid) and (has_ended or _is_known(facts)):
            return None if process.returncode == _COULD_NOT_RUN else facts["batch_id"]
        if has_ended:
            return None
        time.sleep(_LOOK_SECONDS)


def _is_known(facts: dict[str, str]) -> bool:
    """Return True if Redis shows that this process runs the batch."""
    from dspyq.batch.registry import process_registry  # noqa: PLC0415 - as of the commands

    with redis_errors("see the batch begin"), suppress(BatchRefused):
        return process_registry().find(facts["batch_id"]).facts.get("pid") == facts["pid"]
    return False


def _facts(output: Path) -> dict[str, str]:
    """Return the journal's facts about the batch; empty while there is no journal."""
    from dspyq.batch.journal import journal_path  # noqa: PLC0415 - as of the commands

    try:
        with closing(sqlite3.connect(f"{journal_path(output).absolute().as_uri()}?mode=ro", uri=True)) as database:
            return dict(database.execute("SELECT name, value FROM meta"))
    except sqlite3.Error:
        return {}


def _reason(log: Path, start: int) -> str:
    """Return the errors of a process that did not begin; another one may be writing to the same log."""
    with log.open("rb") as file:
        file.seek(start)
        said = file.read().decode(errors="replace").strip()
    faults = [line for line in said.splitlines() if line.startswith(FAULT_MARK)]
    return "\n".join(faults) or said


def _tell(batch_id: str, pid: int, log: Path, *, as_json: bool) -> None:
    if as_json:
        print_json({"id": batch_id, "pid": pid, "log": str(log)})
        return
    console.print(
        f"batch {batch_id} runs as process {pid}, and logs its progress to {log}\n"
        f"  dspyq batch status {batch_id}\n"
        f"  dspyq batch pause|resume|cancel {batch_id}",
        highlight=False,
        soft_wrap=True,
    )
