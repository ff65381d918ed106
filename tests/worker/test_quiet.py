"""Metrics of many variants: those that nothing has happened to are neither shown nor read."""

import pytest

from dspyq.cache.statistics import statistics_steps
from dspyq.config.settings import get_settings
from dspyq.guards.limits import Limits, read_accounts
from dspyq.store.clients import jobs_client
from dspyq.store.scripts import run_together
from dspyq.worker.monitoring.quiet import SHOWS_ALL_UP_TO, Shown


def test_where_few_are_configured_all_are_shown():
    assert Shown(SHOWS_ALL_UP_TO).shows("qa.control", 0)


def test_where_many_are_configured_a_series_is_shown_once_something_happened_and_stays():
    shown = Shown(SHOWS_ALL_UP_TO + 1)
    assert not shown.shows("qa.control", 0, 0.0, None)
    assert shown.shows("qa.control", 0, 2)
    assert shown.shows("qa.control", 0, 0)
    assert not shown.shows("qa.other", 0)


@pytest.mark.parametrize(("of", "expected"), [(None, 1), ({("qa", "control")}, 1), (set(), 0)])
def test_only_the_variants_that_are_named_are_read(configured, of, expected):
    del configured
    assert len(statistics_steps(get_settings(), of)) == expected
    accounts = read_accounts(run_together(jobs_client(), Limits(jobs_client(), get_settings()).steps(of=of)))
    scopes = {account.scope for account in accounts}
    assert scopes == ({"all", "program:qa", "variant:qa.control"} if expected else {"all"})
