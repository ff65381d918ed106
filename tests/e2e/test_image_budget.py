"""A call with images under a real budget: its hold, its bill, and the books."""

import json

import pytest


def ask():
    from dspyq import predict

    pictures = ["https://example.com/a.png", "data:image/png;base64," + "A" * 40_000]
    return predict.delay(pictures=pictures).get(timeout=20).metadata.cost_usd


def test_images_are_held_at_their_bound_and_billed_at_their_usage(
    worker, settings_file, start_producer, dspyq, endpoint
):
    path = settings_file(
        {
            "budget": {"daily_usd": 1},
            "models": {"control": {"image_tokens": 2_000, "max_tokens": 100}},
            "programs": {"qa": {"signature": "pictures: list[dspy.Image] -> answer"}},
        }
    )
    worker(path)
    usage = {"prompt_tokens": 3_100, "completion_tokens": 20}
    endpoint.script(content="[[ ## answer ## ]]\na cat\n\n[[ ## completed ## ]]", usage=usage)
    endpoint.hold()
    asked = start_producer(ask, path)
    endpoint.wait_for_calls(1)

    def daily():
        accounts = json.loads(dspyq("budget", "show", "--json", settings=path).stdout)
        return next(each for each in accounts if (each["scope"], each["period"]) == ("all", "daily"))

    # Two images at 2,000 tokens, 100 tokens of the reply, and the text: never the 40,000 bytes of the second image.
    images_and_reply_usd = (2 * 2_000 * 1.0 + 100 * 2.0) / 1e6
    assert images_and_reply_usd < daily()["held_usd"] < images_and_reply_usd + 5_000 / 1e6
    endpoint.release()
    billed_usd = (3_100 * 1.0 + 20 * 2.0) / 1e6
    assert asked.result(30) == pytest.approx(billed_usd)
    account = daily()
    assert account["held_usd"] == 0
    assert account["settled_usd"] == pytest.approx(billed_usd)
    (books,) = json.loads(dspyq("costs", "--json", settings=path).stdout)["costs"]
    assert (books["program"], books["billed_usd"]) == ("qa", pytest.approx(billed_usd))


def test_an_image_that_no_limit_can_hold_is_refused_unsent(worker, settings_file, run_producer, endpoint):
    path = settings_file(
        {
            "budget": {"daily_usd": 0.05},
            "programs": {"qa": {"signature": "pictures: list[dspy.Image] -> answer", "when_unavailable": "fail"}},
        }
    )
    worker(path)

    def ask_and_fail():
        from dspyq import predict
        from dspyq.errors import DspyqError

        try:
            predict.delay(pictures=["https://example.com/a.png"]).get(timeout=20)
        except DspyqError as error:
            return f"{type(error).__name__}: {error}"

    assert "BudgetExceeded" in run_producer(ask_and_fail, path)
    assert endpoint.calls() == 0
