"""Reads what a report shows from Redis."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version as installed_version

from dspyq.cli.experiment_report.content import AccountSpent, ExperimentReport
from dspyq.config.programs import Program
from dspyq.config.settings import get_settings
from dspyq.core.days import day_at
from dspyq.core.money import to_usd
from dspyq.errors import ExperimentRefused
from dspyq.experiments import administration
from dspyq.experiments.durations import read_durations
from dspyq.experiments.feedback_days import read_feedback_days
from dspyq.experiments.looks_store import read_points
from dspyq.experiments.state import ExperimentState
from dspyq.experiments.status import status
from dspyq.guards.limits import Limits
from dspyq.store.clients import money_client, redis_errors

_MOST_LOG_ENTRIES = 500
#: The log's times are of milliseconds.
_TOLERANCE_SECONDS = 1.0


def gather(program: Program) -> ExperimentReport:
    """Return the content of the report on a program's experiment, with a look at its sums as they are now.

    Raises:
        ExperimentRefused: If none was ever started.
        RedisUnavailable: If Redis does not answer.
    """
    standing = status(program.name)
    if standing is None:
        raise ExperimentRefused(f"{program.name} has no experiment; start one: dspyq experiment start {program.name}")
    state, plan, now = standing.state, standing.plan, standing.at
    log = administration.read_log(program.name, _MOST_LOG_ENTRIES)
    return ExperimentReport(
        state=state,
        plan=plan,
        file=_file(program, state.plan_sha256),
        at=now,
        latest=standing.look if any(standing.look.units.values()) else None,
        looked_at=standing.looked_at,
        points=tuple(read_points(state)),
        log=tuple(entry for entry in log if entry.at >= state.started_at - _TOLERANCE_SECONDS),
        feedback=read_feedback_days(state, plan.table, today=day_at(now)),
        durations=read_durations(state),
        accounts=tuple(_accounts(state)),
        versions={"dspyq": installed_version("dspyq")},
        needed=standing.needed,
        next_step=standing.next_step,
    )


def _accounts(state: ExperimentState) -> Iterator[AccountSpent]:
    """Return what the arms' accounts have spent, and accounts of the program beside its own: shadow runs, judges."""
    arms = {f"{state.program}.{arm}" for arm in state.arms}
    with redis_errors("read the budgets"):
        accounts = Limits(money_client(), get_settings()).accounts()
    for account in accounts:
        kind, _, name = account.scope.partition(":")
        is_own = name in arms if kind == "variant" else name == state.program and kind != "program"
        if is_own and (account.is_used or account.is_limited):
            limit = account.limit_nano_usd
            spent = to_usd(account.settled_nano_usd)
            yield AccountSpent(account.scope, account.label, spent, None if limit is None else to_usd(limit))


def _file(program: Program, sha256: str) -> str:
    if program.experiment is None:
        return "the file has no experiment"
    return "as in the file" if administration.plan_of(program).sha256 == sha256 else "the file differs from it"
