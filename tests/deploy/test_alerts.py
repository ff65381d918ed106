"""The alert rules, tried by promtool, and their runbooks."""

import re

import pytest

from tests.support.deployment import DEPLOY, alerts, run, tool
from tests.support.processes import REPOSITORY

PROMETHEUS = DEPLOY / "prometheus"
WANTED = {
    "HighErrorRate",
    "CircuitBreakerOpen",
    "HighLatency",
    "BudgetExceeded",
    "WorkersStalled",
    "BacklogGrowing",
    "DeadJobs",
    "StrandedJobs",
    "ExperimentBreach",
    "ExperimentBroken",
    "ExperimentStale",
    "LaneShipmentOld",
    "LaneDouble",
    "LaneStuck",
    "LaneUnattended",
}


@pytest.fixture
def promtool():
    return tool("promtool", "Debian's package prometheus")


def test_prometheus_accepts_its_configuration_and_the_rules(promtool):
    assert "rules found" in run(promtool, "check", "config", str(PROMETHEUS / "prometheus.yml")).stdout


def test_each_alert_fires_when_it_should_and_not_when_it_should_not(promtool):
    run(promtool, "test", "rules", *map(str, sorted((PROMETHEUS / "tests").glob("*.yml"))))


def test_each_alert_has_a_test_in_which_it_fires_and_one_in_which_it_does_not():
    tests = "".join(path.read_text() for path in (PROMETHEUS / "tests").glob("*.yml"))
    seen = re.findall(r"alertname: (\w+)\n +eval_time: \w+\n +exp_alerts:( \[\])?", tests)
    for rule in alerts():
        assert (rule["alert"], "") in seen, f"{rule['alert']} never fires"
        assert (rule["alert"], " []") in seen, f"{rule['alert']} always fires"


def test_each_alert_states_its_meaning_severity_and_runbook():
    runbooks = (REPOSITORY / "docs" / "runbooks.md").read_text()
    rules = alerts()
    assert {rule["alert"] for rule in rules} >= WANTED
    for rule in rules:
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
        assert rule["annotations"]["runbook_url"] == f"docs/runbooks.md#{rule['alert'].lower()}"
        assert f"\n## {rule['alert']}\n" in runbooks


def test_commands_in_runbooks_exist():
    from typer.main import get_command

    from dspyq.cli.main import app

    runbooks = (REPOSITORY / "docs" / "runbooks.md").read_text()
    used = re.findall(r"^dspyq (.+)$", runbooks, re.MULTILINE)
    assert used
    whole = get_command(app)  # once: it builds every command
    for line in used:
        command = whole
        for word in line.split():
            if not hasattr(command, "commands"):
                break
            assert word in command.commands, line
            command = command.commands[word]
        options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert set(re.findall(r"--[\w-]+", line)) <= options, line
