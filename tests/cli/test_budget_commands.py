"""``dspyq budget`` and ``dspyq costs``: what they print, what they change, and how they fail in one line."""

import csv
import io
import json

import pytest

from dspyq.config.settings import load_settings
from dspyq.guards.billing import Bill, BilledCall
from dspyq.guards.budget import Budget
from tests.support.budgets import do
from tests.support.experiments import with_experiment

NANO = 10**9
SCORER = "tests.support.user_scorers:is_brief"


@pytest.fixture
def path(settings_file):
    return settings_file(
        {
            "budget": {"daily_usd": 2, "monthly_usd": 40},
            "programs": {"qa": {"daily_usd": 1, "variants": {"control": {"monthly_usd": 30}}}},
        }
    )


@pytest.fixture
def budget(path, redis_server):
    with redis_server.client(decode_responses=False) as client:
        yield _Budget(client, Budget(client, load_settings(path)))


class _Budget:
    """A worker's budget, whose steps are done at once."""

    def __init__(self, client, budget):
        self._client, self._budget = client, budget
        self._calls = 0

    def spend(self, usd, *, tokens=(10, 5)):
        bill = Bill(None if usd is None else round(usd * NANO), *tokens)
        do(self._client, self._budget.hold(self.next_call(), NANO // 4), self._budget.settle(self.call, bill))

    def hold(self, usd):
        return do(self._client, self._budget.hold(self.next_call(), round(usd * NANO)))

    def next_call(self):
        self._calls += 1
        return self.call

    @property
    def call(self):
        return BilledCall(f"task:1:{self._calls}", "qa", "control", "control")


def fault(done):
    lines = done.stderr.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def accounts(dspyq, path):
    rows = json.loads(dspyq("budget", "show", "--json", settings=path).stdout)
    return {(row["scope"], row["period"]): row for row in rows}


def test_show_prints_limits_and_settled_held_and_free_amounts(dspyq, path, budget):
    budget.spend(0.2)
    budget.hold(0.5)
    found = accounts(dspyq, path)
    amounts = {name: found["program:qa", "daily"][f"{name}_usd"] for name in ("limit", "settled", "held", "free")}
    assert amounts == {"limit": 1, "settled": 0.2, "held": 0.5, "free": 0.3}
    assert found["program:qa", "monthly"]["limit_usd"] is None
    assert found["program:qa", "monthly"]["free_usd"] is None
    shown = dspyq("budget", "show", settings=path).stdout
    assert [line.split()[2:6] for line in shown.splitlines() if "program:qa" in line] == [
        ["$1.00", "$0.2", "$0.5", "$0.3"],
        ["–", "$0.2", "$0.00", "–"],
    ]


def test_show_leaves_out_scopes_that_have_no_limit_and_spent_nothing(dspyq):
    shown = dspyq("budget", "show").stdout
    assert len([line for line in shown.splitlines() if line.startswith("all")]) == 2
    assert "program:qa" not in shown


def test_a_limit_that_is_set_works_at_once_and_none_takes_it_away(dspyq, path, budget):
    assert budget.hold(1.5).verdict == "never"
    said = dspyq("budget", "set", "--daily", "1.75", "--program", "qa", settings=path).stdout
    assert said == "daily limit of program:qa: $1.75 (set here)\n"
    assert budget.hold(1.5).is_held
    shown = dspyq("budget", "show", settings=path).stdout
    assert [line.split()[-2:] for line in shown.splitlines() if "$1.75" in line] == [["set", "here"]]
    said = dspyq("budget", "set", "--daily", "none", "--program", "qa", settings=path).stdout
    assert said == "daily limit of program:qa: $1.00 (the configuration's)\n"
    assert budget.hold(1.5).verdict == "never"


def test_limits_of_all_and_of_a_variant_are_set_too(dspyq, path):
    dspyq("budget", "set", "--daily", "5", "--monthly", "50", settings=path)
    variant = ("--program", "qa", "--variant", "control")
    (changed,) = json.loads(dspyq("budget", "set", "--daily", "0", *variant, "--json", settings=path).stdout)
    assert (changed["scope"], changed["limit_usd"], changed["is_override"]) == ("variant:qa.control", 0, True)
    found = accounts(dspyq, path)
    assert [found["all", period]["limit_usd"] for period in ("daily", "monthly")] == [5, 50]


def test_reset_forgets_what_a_scope_has_spent_once_it_is_confirmed(dspyq, path, budget):
    budget.spend(0.2)
    budget.hold(0.5)
    assert "Aborted" in dspyq("budget", "reset", "--program", "qa", settings=path, ok=False).stderr
    assert budget.hold(0.9).verdict == "exhausted"  # nothing is forgotten yet
    said = dspyq("budget", "reset", "--daily", "--yes", "--program", "qa", settings=path).stdout
    assert "$0.2 forgotten of program:qa" in said
    found = accounts(dspyq, path)
    assert [found["program:qa", "daily"][f"{name}_usd"] for name in ("settled", "held")] == [0, 0.5]
    assert found["program:qa", "monthly"]["settled_usd"] == 0.2
    assert found["all", "daily"]["settled_usd"] == 0.2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["budget", "set"], "use --daily, --monthly or both"),
        (["budget", "set", "--daily", "much"], "--daily is dollars from 0 to 9,000,000, or none; not 'much'"),
        (["budget", "set", "--monthly", "nan"], "--monthly is dollars from 0 to 9,000,000"),
        (["budget", "set", "--daily", "1", "--program", "nobody"], "there is no program 'nobody'"),
        (["budget", "set", "--daily", "1", "--variant", "control"], "use --program too"),
        (["budget", "reset", "--yes", "--program", "qa", "--variant", "x"], "program qa has no variant 'x'"),
        (["costs", "--json", "--csv"], "use --json or --csv, not both"),
    ],
)
def test_what_cannot_be_done_is_one_line(arguments, told, dspyq):
    assert told in fault(dspyq(*arguments, ok=False))


@pytest.mark.parametrize("arguments", [["costs"], ["budget", "set", "--daily", "1"]])
def test_a_redis_that_is_not_there_is_one_line(arguments, dspyq):
    assert "DSPYQ_REDIS_URL" in fault(dspyq(*arguments, redis_url="redis://127.0.0.1:1/0", ok=False))


def test_costs_are_shown_as_a_table_as_json_and_as_csv(dspyq, path, budget):
    budget.spend(0.125)
    budget.spend(None, tokens=(0, 0))
    table = dspyq("costs", settings=path, env={"COLUMNS": "140"}).stdout
    (line,) = [line for line in table.splitlines() if " qa.control " in line]
    assert line.split()[1:] == ["qa.control", "control", "2", "10", "5", "$0.125", "$0.25", "$0.00"]
    assert [line.split()[2:] for line in table.splitlines() if line.startswith("program:qa")] == [
        ["$1.00", "$0.375", "$0.00", "$0.625"]
    ]
    told = json.loads(dspyq("costs", "--days", "2", "--json", settings=path).stdout)
    (costs,) = told["costs"]
    assert (costs["billed_usd"], costs["unknown_usd"], costs["unknown_calls"]) == (0.125, 0.25, 1)
    assert {(row["scope"], row["period"]) for row in told["limits"]} == {
        ("all", "daily"),
        ("all", "monthly"),
        ("program:qa", "daily"),
        ("variant:qa.control", "monthly"),
    }
    (row,) = csv.DictReader(io.StringIO(dspyq("costs", "--csv", settings=path).stdout))
    assert (row["program"], row["calls"], row["billed_usd"], row["unknown_usd"]) == ("qa", "2", "0.125", "0.25")


def test_without_costs_it_states_that(dspyq):
    assert "No model was called in the last 7 days" in dspyq("costs").stdout
    assert dspyq("costs", "--csv").stdout.splitlines() == [
        "day,program,variant,model,calls,prompt_tokens,completion_tokens,billed_usd,unknown_calls,unknown_usd,avoided_usd"
    ]


def test_help_teaches_with_examples(dspyq):
    assert "dspyq costs --days 30 --csv" in dspyq("costs", "--help", settings="/nowhere.toml").stdout
    assert "dspyq budget set --daily 20 --program qa" in dspyq("budget", "set", "--help").stdout
    assert "dspyq budget reset --daily --program qa" in dspyq("budget", "reset", "--help").stdout


@pytest.fixture
def shadow_path(settings_file):
    scored = {"scores": {"brief": {"scorer": SCORER, "low": 0, "high": 1}}}
    shadow = {"shadow": {"variants": ["challenger"], "share": 0.1, "daily_usd": 2}}
    changes = with_experiment(**scored, **shadow)
    changes["programs"]["qa"]["scorers"] = [SCORER]
    return settings_file(changes, challenger=0.5)


def test_shadow_runs_have_an_account_whose_limit_can_be_set(dspyq, shadow_path):
    assert accounts(dspyq, shadow_path)["shadow:qa", "daily"]["limit_usd"] == 2
    said = dspyq("budget", "set", "--daily", "5", "--program", "qa", "--shadow", settings=shadow_path).stdout
    assert said == "daily limit of shadow:qa: $5.00 (set here)\n"
    assert accounts(dspyq, shadow_path)["shadow:qa", "daily"]["limit_usd"] == 5
    refused = dspyq("budget", "set", "--daily", "5", "--shadow", settings=shadow_path, ok=False)
    assert "--program" in fault(refused)


def test_a_program_without_shadow_runs_has_no_account_of_them(dspyq, path):
    refused = dspyq("budget", "set", "--daily", "5", "--program", "qa", "--shadow", settings=path, ok=False)
    assert "programs.qa.experiment.shadow" in fault(refused)
