"""Producer code in a Python process of its own, for configurations other than the test run's, or to be killed.

The function's source is sent, not the function: it imports what it needs itself and sees nothing of its test. Its
arguments and its result are JSON.
"""

from __future__ import annotations

import inspect
import json
import sys
import tempfile
import textwrap
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.support.processes import LocalProcess

_MODULE = "tests.support.producer_process"
_STARTED_LINE = "producer started"
_FUNCTION_NAME = "run"


class ProducerError(Exception):
    """The code raised; ``type_name`` is the class's name and the text ends with the producer's traceback."""

    def __init__(self, type_name: str, message: str, trace: str) -> None:
        self.type_name = type_name
        self.message = message
        super().__init__(f"{type_name}: {message}\n{trace}")


class Producer:
    """A producer's process.

    Attributes:
        process: The process: ``stop()``, ``kill()``, ``logs()``.
    """

    def __init__(
        self,
        code: str | Callable[..., Any],
        arguments: dict[str, Any],
        env: Mapping[str, str],
        *,
        repository: Path | None = None,
    ) -> None:
        """Start it.

        Args:
            code: A function, or the body of one as text.
            arguments: Its keyword arguments.
            env: Its whole environment (see ``configuration.environment``).
            repository: Where another version of dspyq is checked out, whose code it is to run.
        """
        self._directory = tempfile.TemporaryDirectory(prefix="producer-")
        folder = Path(self._directory.name)
        self._result_file = folder / "result.json"
        job_file = folder / "job.json"
        job_file.write_text(json.dumps({"source": _source(code, arguments), "arguments": arguments}))
        command = [sys.executable, "-m", _MODULE, str(job_file), str(self._result_file)]
        place = {"directory": repository} if repository else {"module": _MODULE}
        self.process = LocalProcess("producer", command, ready_line=_STARTED_LINE, env=env, **place)

    def result(self, timeout_seconds: float = 30.0) -> Any:
        """Wait until it has ended and return what the code returned.

        Raises:
            ProducerError: If the code raised.
            TimeoutError: With its output, if it does not end.
        """
        status = self.process.wait(timeout_seconds)
        if not self._result_file.exists():
            raise ProducerError("NoResult", f"the process ended with {status}", self.process.logs())
        outcome = json.loads(self._result_file.read_text())
        if "error" in outcome:
            raise ProducerError(**outcome["error"])
        return outcome["result"]

    def close(self) -> None:
        """Kill it if it runs."""
        self.process.kill()
        self.process.close()
        self._directory.cleanup()


def _source(code: str | Callable[..., Any], arguments: dict[str, Any]) -> str:
    if callable(code):
        source = textwrap.dedent(inspect.getsource(code))
        return f"{source}\n{_FUNCTION_NAME} = {code.__name__}\n"
    body = textwrap.indent(textwrap.dedent(code).strip("\n"), "    ")
    return f"def {_FUNCTION_NAME}({', '.join(arguments)}):\n{body}\n"


def main(job_path: str, result_path: str) -> None:
    """Run the code that a parent wrote down."""
    sys.stdout.write(f"{_STARTED_LINE}\n")
    sys.stdout.flush()
    job = json.loads(Path(job_path).read_text())
    names: dict[str, Any] = {}
    try:
        exec(job["source"], names)  # noqa: S102 - the test's own code
        outcome = {"result": names[_FUNCTION_NAME](**job["arguments"])}
        text = json.dumps(outcome)
    except Exception as error:  # noqa: BLE001 - told to the parent, whatever it is
        details = {"type_name": type(error).__name__, "message": str(error), "trace": traceback.format_exc()}
        text = json.dumps({"error": details})
    partial = Path(f"{result_path}.partial")
    partial.write_text(text)
    partial.rename(result_path)  # whole or not at all, should this process be killed


if __name__ == "__main__":
    main(*sys.argv[1:])
