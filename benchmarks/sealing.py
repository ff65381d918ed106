"""The cost of sealing: hits and misses of a sealed program beside those of a plain one, in turns in one process.

The difference is some microseconds. So blocks are short and many, and the tenth part of the fastest is compared: what
else the machine does slows the others.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.contenders import DSPYQ
from benchmarks.harness import MICROSECONDS, Servers
from benchmarks.rows import Row, Target
from dspyq.sealing.keyring import new_key_line
from tests.support.configuration import default_document, merged, write_settings
from tests.support.processes import LocalProcess

_PATH = "sealed"
_SIZES = (("800 B", 40), ("10 KB", 9_000))
_TARGETS = {"hit in L2": 1.15, "miss": 1.05, "hit in L1": 1.05}


def run(*, quick: bool) -> list[Row]:
    """Measure hits and misses of a sealed program beside those of a plain one, and envelopes by themselves."""
    calls, rounds = (20, 5) if quick else (40, 400)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder, Servers() as servers:
        paths = _write(Path(folder), servers.endpoint.url)
        for size, characters in _SIZES:
            question = "x" * characters
            servers.redis.flush()  # jobs of the misses before
            for path in paths.values():
                env = servers.environment({"DSPYQ_CONFIG": path})
                with LocalProcess(DSPYQ.name, list(DSPYQ.worker_command), ready_line=" ready.", env=env) as worker:
                    worker.ready(60)
                    servers.run("sealing:ask", {"DSPYQ_CONFIG": path}, question=question)
            found = servers.run("sealing:measure", paths=paths, question=question, calls=calls, rounds=rounds)
            rows += [_row(size, name, found, target) for name, target in _TARGETS.items()]
        envelopes = servers.run("sealing:measure_envelopes", text_bytes=1024, calls=20 * calls)
    rows += [Row(_PATH, f"{name} 1 KB", "µs", seconds * MICROSECONDS) for name, seconds in sorted(envelopes.items())]
    return rows


def _row(size: str, name: str, found: dict[str, Any], most: float) -> Row:
    sealed, plain = (_fastest_tenth(found[f"{name}, {side}"]) for side in ("sealed", "plain"))
    return Row(
        _PATH, f"{name}, a stored answer of about {size}", "µs", sealed * MICROSECONDS, "plain text",
        plain * MICROSECONDS, sealed / plain, Target("ratio", "at most", most),
        note=f"stored answers had {found['answer_bytes'][0]:,} and {found['answer_bytes'][1]:,} bytes",
    )  # fmt: skip


def _fastest_tenth(seconds: list[float]) -> float:
    return sorted(seconds)[len(seconds) // 10]


def _write(folder: Path, endpoint_url: str) -> dict[str, str]:
    """Write both configurations, whose keys in Redis begin differently; return their paths."""
    keys = folder / "keys"
    keys.touch(0o600)
    keys.write_text(f"{new_key_line()}\n{new_key_line('index')}\n")
    document = default_document(endpoint_url)
    sealed = {
        "key_prefix": "sealed:",
        "encryption": {"keys_file": str(keys)},
        "programs": {"qa": {"encrypt": True}},
    }
    changes = {"plain": {"key_prefix": "plain:"}, "sealed": sealed}
    return {
        name: str(write_settings(folder / f"{name}.toml", merged(document, changed)))
        for name, changed in changes.items()
    }
