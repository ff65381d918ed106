"""Parts that tests of ``deploy/`` share: its files, the tools that check them, and a Prometheus of a test's own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest
import yaml

from tests.support.processes import REPOSITORY, LocalProcess, free_port, wait_until

DEPLOY = REPOSITORY / "deploy"
#: The users of Redis.
USERS = ("worker", "door", "producer", "batch", "watcher", "operator")
#: For every variable that compose.yaml requires.
PASSWORDS = {f"REDIS_{user.upper()}_PASSWORD": f"for{user}" for user in USERS} | {
    "FLOWER_PASSWORD": "forflower",
    "GRAFANA_PASSWORD": "forgrafana",
}
_TIMEOUT_SECONDS = 60


def tool(name: str, comes_from: str) -> str:
    """Return where a program is: beside this Python, or on the path; skip the test, with a reason, where it is not."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not here; it comes from {comes_from}")
    return found


def run(*command: str, env: dict[str, str] | None = None, ok: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a tool in the repository and return what it said."""
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=REPOSITORY, env=env, timeout=_TIMEOUT_SECONDS, check=False
    )
    assert (done.returncode == 0) == ok, done.stdout + done.stderr
    return done


def compose(variables: dict[str, str] | None = None, *, ok: bool = True) -> subprocess.CompletedProcess[str]:
    """Have Docker's own command read compose.yaml, with all profiles."""
    command = tool("docker-compose", "the dev extra")
    # No engine is asked, and no .env of whoever runs the tests.
    options = ["--env-file", "/dev/null", "--profile", "*", "config", "--format", "json"]
    return run(command, *options, env=PASSWORDS if variables is None else variables, ok=ok)


def services(variables: dict[str, str] | None = None) -> dict[str, dict[str, Any]]:
    """Return compose.yaml's services, as Docker understands them, with variables beside the passwords."""
    found: dict[str, dict[str, Any]] = json.loads(compose(PASSWORDS | (variables or {})).stdout)["services"]
    return found


def documents(path: Path) -> Iterator[dict[str, Any]]:
    """Return a YAML file's documents."""
    yield from yaml.safe_load_all(path.read_text(encoding="utf-8"))


def alerts() -> list[dict[str, Any]]:
    """Return the alert rules."""
    (file,) = documents(DEPLOY / "prometheus" / "alerts.yml")
    return [rule for group in file["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    """Return the dashboard's panels, without the rows' titles."""
    dashboard = json.loads((DEPLOY / "grafana" / "dashboards" / "dspyq.json").read_text(encoding="utf-8"))
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


class Prometheus:
    """A Prometheus with this repository's configuration, which scrapes processes of a test.

    Args:
        folder: Where its data and its configuration go.
        targets: The addresses of each of the configuration's jobs; jobs that are left out are not scraped.
        scrape_seconds: How often.
    """

    def __init__(self, folder: Path, targets: dict[str, list[str]], scrape_seconds: float) -> None:
        program = tool("prometheus", "Debian's package prometheus")
        (configuration,) = documents(DEPLOY / "prometheus" / "prometheus.yml")
        configuration["global"] = dict.fromkeys(
            ("scrape_interval", "evaluation_interval"), f"{scrape_seconds * 1000:g}ms"
        )
        rule_files = configuration["rule_files"]
        configuration["rule_files"] = [str(DEPLOY / "prometheus" / name) for name in rule_files]
        configuration["scrape_configs"] = [
            {"job_name": job["job_name"], "static_configs": [{"targets": targets[job["job_name"]]}]}
            for job in configuration["scrape_configs"]
            if job["job_name"] in targets
        ]
        file = folder / "prometheus.yml"
        file.write_text(yaml.safe_dump(configuration), encoding="utf-8")
        self.url = f"http://127.0.0.1:{free_port()}"
        address = self.url.removeprefix("http://")
        arguments = [
            f"--config.file={file}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={address}",
        ]
        self.process = LocalProcess("prometheus", [program, *arguments], ready_line="ready to receive web requests")
        self.process.ready()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.close()

    def get(self, path: str, **parameters: str) -> Any:
        """Ask its API and return the reply's data."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=60) as reply:  # noqa: S310 - loopback
            return json.load(reply)["data"]

    def ask(self, expression: str) -> list[dict[str, Any]]:
        """Return the series that an expression has now."""
        found: list[dict[str, Any]] = self.get("query", query=expression)["result"]
        return found

    def wait_for(self, expression: str, timeout_seconds: float = 30.0) -> list[dict[str, Any]]:
        """Wait until an expression has series, and return them."""
        found: list[dict[str, Any]] = wait_until(lambda: self.ask(expression), timeout_seconds, expression)
        return found
