"""``dspyq experiment report``: the page, its Markdown and JSON, of looks made by hand and of stored ones."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import time

import pytest

from dspyq.cli.experiment_report import to_html, to_markdown
from dspyq.cli.experiment_report.axes import Axis
from dspyq.experiments import administration
from dspyq.experiments.administration import LoggedChange
from dspyq.experiments.exposure import Exposure
from dspyq.experiments.feedback import give_feedback
from dspyq.experiments.feedback_days import read_feedback_days
from dspyq.experiments.looks import Tracks, look_at
from dspyq.experiments.looks_store import Notes, write_look
from dspyq.experiments.status import NextStep, StillNeeded
from dspyq.experiments.sums_reader import read_sums
from dspyq.experiments.tally import process_tally
from dspyq.experiments.token import make_token
from tests.support.experiment_looks import DAY, STARTED_AT, TABLE, guard, metric, plan_of, report, state_of
from tests.support.experiments import with_experiment
from tests.support.html_page import Page

HOSTILE = '<img src=x onerror=alert(1)>|[a](b)"\x1b[31m'
NOT_LOOKED = {"latest": None, "looked_at": None, "points": (), "feedback": {}, "durations": {}, "accounts": ()}


def page_of(content):
    return Page(to_html(content))


def with_metric(content, name, found):
    """The content, with another finding about a metric at the latest look."""
    challenger = content.latest.challengers["challenger"]
    changed = dataclasses.replace(challenger, metrics=challenger.metrics | {name: found})
    latest = dataclasses.replace(content.latest, challengers={"challenger": changed})
    return dataclasses.replace(content, latest=latest)


def test_the_page_runs_fetches_and_sends_nothing():
    page = page_of(report())
    assert page.references == []
    assert not {"script", "link", "img", "iframe", "form", "object", "use"} & {tag for tag, _ in page.elements}
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    (policy,) = [each["content"] for tag, each in page.elements if tag == "meta" and "http-equiv" in each]
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline';")
    assert "url(" not in to_html(report())


def test_markup_in_names_and_reasons_is_shown_and_not_obeyed():
    table = TABLE | {"arms": [HOSTILE, HOSTILE + "2"]}
    content = report(
        state=state_of(table, name=HOSTILE, program=HOSTILE, reason=HOSTILE, status="stopped", serve=HOSTILE),
        plan=plan_of(TABLE)._replace(fingerprints={HOSTILE: HOSTILE}),
        log=(LoggedChange(STARTED_AT, 1, HOSTILE, HOSTILE, HOSTILE, HOSTILE),),
        versions={HOSTILE: HOSTILE},
        file=HOSTILE,
    )
    renamed = {HOSTILE + "2": content.latest.challengers["challenger"]}
    renamed[HOSTILE + "2"] = dataclasses.replace(renamed[HOSTILE + "2"], because=HOSTILE, outcome=HOSTILE)
    content = dataclasses.replace(content, latest=dataclasses.replace(content.latest, challengers=renamed))
    page = page_of(content)
    assert "img" not in {tag for tag, _ in page.elements}
    assert "\x1b" not in to_html(content) + to_markdown(content)
    assert page.words.count("<img src=x onerror=alert(1)>") > 10
    assert "<img" not in to_markdown(content)
    assert not re.search(r"(?<!\\)\[a\]\(b\)", to_markdown(content))


@pytest.mark.parametrize(
    ("outcome", "kind", "words"),
    [
        ("wins", "good", "challenger wins."),
        ("loses", "bad", "challenger loses."),
        ("breach", "bad", "challenger breaches a guard."),
        ("broken", "bad", "The experiment is broken"),
        ("drifts", "odd", "The effect of challenger has changed meanwhile."),
        ("split", "odd", "challenger is better by answer and worse by traffic, or the other way round."),
        ("no difference that matters", "open", "challenger makes no difference that matters."),
        ("going on", "open", "No verdict on challenger yet."),
        ("a verdict of a later version", "open", "challenger: a verdict of a later version."),
    ],
)
def test_the_headline_states_the_verdict_in_words(outcome, kind, words):
    page = page_of(report(outcome=outcome))
    assert words in page.words
    (verdict,) = page.of_class("verdict")
    assert kind in verdict["class"].split()
    assert f"**{words}" in to_markdown(report(outcome=outcome))


def test_the_headline_holds_the_effect_its_interval_and_the_least_that_matters():
    content = with_metric(report(), "answer.grounded", metric(0.036, 0.022, is_primary=True))
    words = page_of(content).words.replace("\u00a0", " ")
    assert "answer.grounded +0.036 (+0.014 to +0.058, 95 % at any time; the least that matters is 0.03)" in words
    assert "No guard is breached. The sample ratio is sound." in words


def test_an_experiment_without_a_call_has_a_report():
    content = report(**NOT_LOOKED)
    page = page_of(content)
    assert "Nothing is counted yet. It started at 2026-11-01 09:00:00 UTC, and no unit has called yet." in page.words
    assert "primary metric" in page.words
    assert not [tag for tag, _ in page.elements if tag == "svg"]
    assert "Nothing is counted yet." in to_markdown(content)


def test_a_look_before_any_row_has_a_report():
    content = report(looks=1, days=0.001)
    nothing = metric(None, 0, control=None, control_rows=0, challenger_rows=0, is_primary=True, too_early="no rows")
    page = page_of(with_metric(content, "answer.grounded", nothing))
    assert "answer.grounded: challenger minus control" not in page.words
    assert "Sample ratio" in page.words


def test_the_primary_plot_has_zero_the_least_effect_the_plan_and_a_tick_for_each_step_of_the_ramp():
    page = page_of(report())
    assert len(page.of_class("least")) == 3  # two lines, and the legend
    assert len(page.of_class("planned")) == 1
    assert len([each for each in page.of_class("step") if "x1" in each]) == 3
    assert "plan reached, day 7.5" in page.words
    assert "Coverage: 2\u00a0% from the start, 20\u00a0% from 12 h 00 min, 100\u00a0% from day 3." in "".join(page.text)


def test_a_plan_that_is_not_reached_has_no_line():
    content = report()
    latest = content.latest.challengers["challenger"]
    early = tuple(
        dataclasses.replace(look, challengers={"challenger": dataclasses.replace(latest, information_now=6_100.0)})
        for look in content.points
    )
    needed = {"challenger": StillNeeded(0.61, 13_400, 4.25)}
    page = page_of(dataclasses.replace(content, points=early, latest=early[-1], needed=needed))
    assert page.of_class("planned") == []
    assert "61 % of the planned information. The plan needs 13,400 calls more, 4.2 days at the present rate." in (
        page.words.replace("\u00a0", " ")
    )


def test_the_band_is_that_of_the_stored_intervals():
    content = report(looks=3, days=3.0)
    band = page_of(content).of_class("band")[0]["points"].split()
    assert len(band) == 6
    highs = [float(point.split(",")[1]) for point in band[:3]]
    lows = [float(point.split(",")[1]) for point in reversed(band[3:])]
    assert highs == sorted(highs)  # down the page: an interval never widens
    assert lows == sorted(lows, reverse=True)
    assert [float(point.split(",")[0]) for point in band[:3]] == pytest.approx([1000 / 3, 2000 / 3, 1000], abs=0.1)


def test_a_guard_has_its_margin_on_the_side_of_harm():
    content = report()
    cheaper = metric(-0.01, 0.02, higher_is_worse=False, guard=guard(0.05))
    words = page_of(with_metric(content, "response.thumbs", cheaper)).words.replace("\u00a0", " ")
    assert "sound · no less than −5.00 pp" in words
    assert "sound · at most +1.00 pp" in words
    assert "sound · at most +10.0 %" in words


def test_a_breached_guard_is_named_in_the_headline_and_marked():
    page = page_of(report(outcome="breach", failures=0.03))
    assert "Breached: call.failed." in page.words
    assert len([each for each in page.of_class("state") if "bad" in each["class"]]) == 1


def test_differences_of_amounts_are_shares_of_the_control():
    content = with_metric(
        report(), "answer.cost", metric(math.log(0.9), 0, scale="logarithm", low=math.log(0.8), high=0.0, control=2.0)
    )
    (line,) = [line for line in to_markdown(content).splitlines() if line.startswith("| answer.cost |")]
    assert "| −10.0 % | −20.0 % to +0.0 % |" in line.replace("\u00a0", " ")


def test_intervals_that_have_nothing_in_common_are_not_drawn_as_one():
    content = report(outcome="drifts", looks=1)
    drifting = metric(0.03, 0, is_primary=True, low=0.04, high=0.02)
    looked = with_metric(content, "answer.grounded", drifting)
    page = page_of(dataclasses.replace(looked, points=()))
    assert "answer.grounded +0.030 (the looks contradict each other, 95\u00a0%" in "".join(page.text)
    assert len([each for each in page.of_class("band") if "points" in each]) == 4  # the guards'
    assert len([each for each in page.of_class("cross") if each["y1"] != each["y2"]]) == 0


def test_cost_and_quality_are_compared_where_there_is_a_score():
    assert len(page_of(report()).of_class("dot")) == 2
    without = {name: each for name, each in TABLE.items() if name != "scores"} | {"primary": "answer.cost"}
    page = page_of(report(plan=plan_of(without | {"minimum_effect": "3 %"})))
    assert page.of_class("dot") == []
    assert "The plan states no score" in page.words


def test_times_are_a_histogram_of_each_arm_with_its_percentiles():
    content = report()
    page = page_of(content)
    assert len(page.of_class("low")) == 2
    assert len(page.of_class("mark")) == 6
    assert re.search(r"control p50 1\.\d s · p95 4\.\d s · p99 \d\.\d s", page.words)
    assert f"| control | {content.durations['control'].number:,} | 1." in to_markdown(content)
    assert page_of(dataclasses.replace(content, durations={})).of_class("low") == []


def test_days_of_feedback_that_are_not_mature_are_grey():
    page = page_of(report(days=12.0))
    bars = page.of_class("fill")
    assert len(bars) == 26
    assert len([each for each in bars if "unripe" in each["class"]]) == 8


def test_what_it_cost_holds_the_arms_and_the_shadow():
    content = report()
    answers, each = content.rows_of("control", "answer.cost"), content.mean_of("control", "answer.cost")
    assert f"${answers * each:.2f}" in page_of(content).words
    assert "shadow:qa 2026-11-13 $1.24 $2.00" in page_of(content).words


def test_a_running_experiment_that_no_worker_looks_at_states_that():
    content = report()
    assert "No worker looks at it." not in page_of(content).words
    assert "No worker looks at it." in page_of(dataclasses.replace(content, at=content.at + 3_600)).words


def test_the_next_step_of_the_ramp_is_announced():
    words = page_of(report(next_step=NextStep(0.2, 32_400.0))).words.replace("\u00a0", " ")
    assert "Next: coverage 20 %, in 9 h 00 min." in words
    assert "The next step of the ramp is due." in page_of(report(next_step=NextStep(0.2, 0.0))).words


@pytest.mark.parametrize(
    ("effect", "higher_is_worse", "kind"), [(0.05, False, "better"), (-0.05, False, "worse"), (-0.05, True, "better")]
)
def test_the_time_of_the_finding_is_marked_as_better_or_worse(effect, higher_is_worse, kind):
    content = report(effect=effect)
    turned = dataclasses.replace(content.metric("challenger", "answer.grounded"), higher_is_worse=higher_is_worse)
    page = page_of(with_metric(content, "answer.grounded", turned))
    assert [each["class"] for each in page.of_class("decided")] == [f"decided {kind}"]
    assert f"interval {'above' if effect > 0 else 'below'} 0, day" in page.words


def test_each_challenger_has_a_verdict_and_a_plot_of_its_own():
    content = report()
    table = TABLE | {"arms": ["control", "challenger", "bold"]}
    both = {"challenger": content.latest.challengers["challenger"]}
    both["bold"] = dataclasses.replace(both["challenger"], outcome="loses")
    looks = tuple(dataclasses.replace(look, challengers=both) for look in content.points)
    page = page_of(
        dataclasses.replace(content, state=state_of(table), plan=plan_of(table), points=looks, latest=looks[-1])
    )
    assert [each["class"] for each in page.of_class("verdict")] == ["verdict good", "verdict bad"]
    assert "answer.grounded: challenger minus control" in page.words
    assert "answer.grounded: bold minus control" in page.words
    assert len(page.of_class("dot")) == 3


def test_json_holds_the_looks_and_nothing_that_is_not_json(dspyq, settings_file, configure):
    path = settings_file(with_experiment(), challenger=0.5)
    administration.start(configure(path).programs["qa"])
    found = json.loads(dspyq("experiment", "report", "qa", "--json", settings=path).stdout)
    assert (found["program"], found["latest"], [look["number"] for look in found["looks"]]) == ("qa", None, [1])
    assert found["plan"]["table"]["primary"] == "answer.cost"


@pytest.mark.parametrize(
    ("values", "marks"),
    [
        ((-0.05, 0.1), [-0.05, -0.025, 0.0, 0.025, 0.05, 0.075, 0.1]),
        ((0.0, 0.0), [-1.0, -0.5, 0.0, 0.5, 1.0]),
        ((math.inf, 3.0, 5.0, math.nan), [3.0, 3.5, 4.0, 4.5, 5.0]),
        ((1e-9, 2e-9), [1e-9, 1.2e-9, 1.4e-9, 1.6e-9, 1.8e-9, 2e-9]),
    ],
)
def test_an_axis_has_round_marks_and_holds_all_values(values, marks):
    axis = Axis.around(values, marks=6 if values[0] == -0.05 else 5)
    assert axis.marks == pytest.approx(marks)
    assert axis.share(axis.low) == axis.share(-math.inf) == axis.share(math.nan) == 0
    assert axis.share(axis.high) == axis.share(math.inf) == 1


def test_an_experiment_is_reported_from_its_start_to_its_end(dspyq, settings_file, configure, tmp_path):
    feedback = {"thumbs": {"low": 0, "high": 1}}
    path = settings_file(with_experiment(feedback=feedback), challenger=0.5)
    refused = dspyq("experiment", "report", "qa", settings=path, ok=False)
    assert "qa has no experiment; start one: dspyq experiment start qa" in refused.stderr
    program = configure(path).programs["qa"]
    state, table = administration.start(program, reason="<b>try"), administration.plan_of(program).table
    page = tmp_path / "report.html"
    dspyq("experiment", "report", "qa", "--html", str(page), settings=path)
    assert "Nothing is counted yet." in Page(page.read_text()).words
    today = int(time.time() // DAY)
    for unit in range(40):
        arm = state.arms[unit % 2]
        exposure = Exposure("qa", state.epoch, arm, unit, unit + 7, unit, today)
        process_tally().count(exposure, "an answer", 0.25, is_slow=False)
        give_feedback(make_token(exposure, f"call {unit}", b"{}"), "thumbs", unit % 4 == 0)
    process_tally().flush()
    looked = look_at(state, table, read_sums(state, table, today=today), Tracks(), state.started_at + 60)
    write_look(state, looked, Notes())
    administration.stop("qa", reason="enough")
    out = dspyq("experiment", "report", "--html", str(page), "--markdown", str(tmp_path / "r.md"), settings=path)
    assert out.stdout == ""
    words = Page(page.read_text()).words
    assert "No verdict on challenger yet." in words
    assert "It is stopped; all get control: enough." in words
    assert "Units: control 20, challenger 20. The ratio is sound" in words
    assert "<b>try" in words
    assert "as in the file" in words
    assert "&lt;b&gt;try" in (tmp_path / "r.md").read_text()
    printed = dspyq("experiment", "report", settings=path).stdout
    assert "## thumbs by day of exposure" in printed
    ((day,),) = [tuple(read_feedback_days(state, table, today=today)["thumbs"])]
    assert (day.day, day.is_mature) == (today, False)
    assert day.arms["control"] == (20, 20, pytest.approx(0.5))
    assert day.arms["challenger"] == (20, 20, 0.0)


def test_the_budgets_of_the_arms_are_in_the_report(dspyq, settings_file, configure):
    changes = with_experiment()
    changes["programs"]["qa"]["variants"] = {"challenger": {"daily_usd": 3.0}}
    path = settings_file(changes, challenger=0.5)
    administration.start(configure(path).programs["qa"])
    (account,) = json.loads(dspyq("experiment", "report", "--json", settings=path).stdout)["accounts"]
    assert (account["name"], account["spent_usd"], account["limit_usd"]) == ("variant:qa.challenger", 0.0, 3.0)
    assert "| variant:qa.challenger | " in dspyq("experiment", "report", settings=path).stdout


def test_a_report_that_cannot_be_written_is_one_line(dspyq, settings_file, configure, tmp_path):
    path = settings_file(with_experiment(), challenger=0.5)
    administration.start(configure(path).programs["qa"])
    nowhere = tmp_path / "none" / "report.html"
    failed = dspyq("experiment", "report", "--html", str(nowhere), settings=path, ok=False)
    assert f"cannot write {nowhere}" in failed.stderr
    assert len(failed.stderr.splitlines()) == 1
