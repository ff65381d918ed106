"""The table of problems: complete, and discreet."""

import pytest

from dspyq import errors
from dspyq.guards import admission, budget, limits, model  # noqa: F401 - they may define errors
from dspyq.serve.problems import TABLE, Declined, problem_of

#: No server loads them, or each is caught where it is raised.
NEVER_AT_A_DOOR = ("dspyq.cli", "dspyq.stack", "dspyq.testing", "dspyq.experiments.fence", "dspyq.lane.providers")


def every_error(above=errors.DspyqError):
    yield above
    for each in above.__subclasses__():
        yield from every_error(each)


def of_dspyq():
    return sorted(
        {
            each
            for each in every_error()
            if each.__module__.startswith("dspyq") and not each.__module__.startswith(NEVER_AT_A_DOOR)
        },
        key=lambda each: each.__name__,
    )


@pytest.mark.parametrize("error", of_dspyq(), ids=lambda each: each.__name__)
def test_each_error_has_a_row_of_its_own(error):
    assert error in TABLE


@pytest.mark.parametrize("error", of_dspyq(), ids=lambda each: each.__name__)
def test_a_row_states_whether_a_retry_helps_as_its_error_does(error):
    of_the_account = {errors.TenantLimitReached, errors.BatchLimitReached, errors.AccountRefused}
    if error not in {errors.Unavailable, *of_the_account}:
        assert TABLE[error].is_retryable == error.retryable


def test_a_program_s_own_words_are_not_shown_unless_that_is_wanted():
    error = errors.PredictionFailed("ValueError: the patient is 87")
    assert problem_of(error).detail == "ValueError"
    assert problem_of(error, shows_errors=True).detail == str(error)
    assert problem_of(errors.PredictionFailed("the patient is 87")).detail == ""


def test_what_is_no_error_of_ours_shows_nothing():
    problem = problem_of(RuntimeError("redis://user:secret@host"))
    assert (problem.status, problem.detail) == (500, "")
    assert "secret" not in str(problem.stated("r"))


def test_an_address_of_redis_is_not_shown():
    assert problem_of(errors.RedisUnavailable("cannot ask: Error 111 connecting to 10.0.0.1:6379")).detail == ""


def test_seconds_until_a_retry_are_the_error_s_own_where_it_has_some():
    error = errors.RateLimited("later")
    error.retry_after_seconds = 2.4
    headers = dict(problem_of(error).stated_headers())
    assert (headers[b"retry-after"], headers[b"x-should-retry"]) == (b"3", b"true")
    assert b"retry-after" not in dict(problem_of(errors.UnknownVariant("x")).stated_headers())


def test_the_door_s_own_refusals_keep_their_members():
    declined = Declined(TABLE[errors.InvalidInputs], "no", faults=(("/inputs", "is missing"),))
    stated = problem_of(declined).stated("r-1")
    assert stated["errors"] == [{"pointer": "/inputs", "detail": "is missing"}]
    assert stated["request_id"] == "r-1"
