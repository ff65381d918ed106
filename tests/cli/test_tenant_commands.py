"""``dspyq tenants``, and the commands on budgets and costs where they are of tenants."""

import json

import pytest

from dspyq.config.settings import load_settings
from dspyq.guards.billing import Bill, BilledCall
from dspyq.guards.budget import Budget
from tests.support.budgets import do

NANO = 10**9


@pytest.fixture
def path(settings_file):
    return settings_file({"tenants": {"daily_usd": 2, "requests_per_second": 50, "burst_requests": 10}})


@pytest.fixture
def spend(path, redis_server):
    """Hold and settle a call of a tenant: ``spend("acme", 0.2)``."""
    with redis_server.client(decode_responses=False) as client:
        budget, numbers = Budget(client, load_settings(path)), iter(range(100))

        def settle(tenant, usd):
            call = BilledCall(f"task:1:{next(numbers)}", "qa", "control", "control", tenant=tenant)
            bill = Bill(round(usd * NANO), 10, 5)
            assert do(client, budget.hold(call, NANO // 4)).is_held
            do(client, budget.settle(call, bill))

        yield settle


def fault(done):
    lines = done.stderr.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_list_shows_each_tenant_with_its_limits_and_what_is_left(dspyq, path, spend):
    spend("acme", 0.2)
    spend("acme", 0.1)
    spend("other", 0.05)
    dspyq("tenants", "limit", "other", "--daily", "5", "--monthly", "50", "--rate", "2.5", settings=path)
    found = {each["tenant"]: each for each in json.loads(dspyq("tenants", "list", "--json", settings=path).stdout)}
    assert list(found) == ["acme", "other"]
    daily, monthly = found["acme"]["accounts"]
    assert (daily["limit_usd"], daily["settled_usd"], daily["free_usd"]) == (2, 0.3, 1.7)
    assert (monthly["limit_usd"], monthly["settled_usd"], monthly["free_usd"]) == (None, 0.3, None)
    assert [each["limit_usd"] for each in found["other"]["accounts"]] == [5, 50]
    assert found["acme"]["rate"] == {"requests_per_second": 50, "burst_requests": 10, "is_override": False}
    assert found["other"]["rate"] == {"requests_per_second": 2.5, "burst_requests": 1, "is_override": True}
    lines = dspyq("tenants", "list", settings=path, env={"COLUMNS": "140"}).stdout.splitlines()
    (line,) = [line for line in lines if line.startswith("other") and "$5.00" in line]
    assert line.split()[2:] == ["$5.00", "$0.05", "$0.00", "$4.95", "2.5,", "1", "at", "once", "set", "here"]


def test_show_has_a_tenant_s_limits_rate_and_days(dspyq, path, spend):
    spend("acme", 0.2)
    told = json.loads(dspyq("tenants", "show", "acme", "--json", settings=path).stdout)
    (day,) = told["costs"]
    assert (day["tenant"], day["calls"], day["prompt_tokens"], day["billed_usd"]) == ("acme", 1, 10, 0.2)
    shown = dspyq("tenants", "show", "acme", settings=path).stdout
    assert "model calls: 50, 10 at once a second" in shown
    assert "$1.80" in shown or "$1.8" in shown


def test_costs_by_tenant_are_a_line_for_each_day_and_tenant(dspyq, path, spend):
    spend("acme", 0.2)
    spend("other", 0.05)
    told = json.loads(dspyq("costs", "--by", "tenant", "--json", settings=path).stdout)["costs"]
    assert [(each["tenant"], each["billed_usd"]) for each in told] == [("acme", 0.2), ("other", 0.05)]
    lines = dspyq("costs", "--by", "tenant", settings=path, env={"COLUMNS": "140"}).stdout.splitlines()
    assert [line.split()[1:] for line in lines if " acme " in line] == [
        ["acme", "1", "10", "5", "$0.2", "$0.00", "$0.00"]
    ]
    assert json.loads(dspyq("costs", "--json", settings=path).stdout)["costs"][0]["billed_usd"] == 0.25


def test_a_limit_is_set_and_taken_away(dspyq, path, spend):
    said = dspyq("tenants", "limit", "acme", "--daily", "0.1", "--rate", "3", "--burst", "2", settings=path).stdout
    assert said.splitlines() == [
        "daily limit of tenant:acme: $0.1 (set here)",
        "rate of tenant:acme: 3, 2 at once model calls a second (set here)",
    ]
    with pytest.raises(AssertionError):
        spend("acme", 0.05)
    said = dspyq("tenants", "limit", "acme", "--daily", "none", "--rate", "none", settings=path).stdout
    assert said.splitlines() == [
        "daily limit of tenant:acme: $2.00 (the configuration's)",
        "rate of tenant:acme: 50, 10 at once model calls a second (the configuration's)",
    ]
    spend("acme", 0.05)


def test_the_commands_on_budgets_take_a_tenant(dspyq, path, spend):
    spend("acme", 0.2)
    said = dspyq("budget", "set", "--tenant", "acme", "--monthly", "7", settings=path).stdout
    assert said == "monthly limit of tenant:acme: $7.00 (set here)\n"
    rows = json.loads(dspyq("budget", "show", "--tenant", "acme", "--json", settings=path).stdout)
    assert [(row["scope"], row["limit_usd"], row["settled_usd"]) for row in rows] == [
        ("tenant:acme", 2, 0.2),
        ("tenant:acme", 7, 0.2),
    ]
    said = dspyq("budget", "reset", "--tenant", "acme", "--daily", "--yes", settings=path).stdout
    assert "$0.2 forgotten of tenant:acme" in said
    rows = json.loads(dspyq("budget", "show", "--tenant", "acme", "--json", settings=path).stdout)
    assert [row["settled_usd"] for row in rows] == [0, 0.2]
    assert not [row for row in json.loads(dspyq("budget", "show", "--json").stdout) if "tenant" in row["scope"]]


def test_limits_of_tenants_stay_where_what_was_removed_is_forgotten(dspyq, path):
    dspyq("tenants", "limit", "acme", "--daily", "1", "--rate", "3", settings=path)
    assert json.loads(dspyq("guards", "forget", "--json", settings=path).stdout)["limits"] == []
    assert json.loads(dspyq("tenants", "list", "--json", settings=path).stdout)[0]["rate"]["is_override"]


def test_forget_is_confirmed_first(dspyq, path, spend):
    spend("acme", 0.2)
    assert "Aborted" in dspyq("tenants", "forget", "acme", settings=path, ok=False).stderr
    assert "acme" in dspyq("tenants", "list", settings=path).stdout
    said = dspyq("tenants", "forget", "acme", "--yes", "--books", settings=path).stdout
    assert said == "forgotten of acme: 0 cached answers, its limits and its books\n"
    assert json.loads(dspyq("costs", "--by", "tenant", "--json", settings=path).stdout) == {"costs": []}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["tenants", "show", "a:b"], "a tenant's name has 1 to 64 letters"),
        (["tenants", "show", "nobody"], "nothing is kept of a tenant 'nobody'"),
        (["tenants", "limit", "acme"], "use --daily, --monthly, --rate or several of them"),
        (["tenants", "limit", "acme", "--daily", "much"], "--daily is dollars from 0 to 9,000,000, or none"),
        (["tenants", "limit", "acme", "--rate", "0"], "--rate is a number of model calls a second above 0, or none"),
        (["tenants", "limit", "acme", "--rate", "nan"], "--rate is a number of model calls a second above 0, or none"),
        (["budget", "set", "--daily", "1", "--tenant", "a", "--program", "qa"], "--tenant goes alone"),
        (["costs", "--by", "tenant", "--csv"], "tenants' costs are printed as a table or with --json"),
        (["predict", "question=q", "--tenant", "a b"], "a tenant's name has 1 to 64 letters"),
    ],
)
def test_what_cannot_be_done_is_one_line(arguments, told, dspyq):
    assert told in fault(dspyq(*arguments, ok=False))
