"""The forms that take input fields and nothing else: they need a configuration of one program."""

import asyncio

from celery import group

from dspyq import predict
from dspyq.testing import answers

ANSWER = {"answer": "42"}


async def _adelay():
    return await (await predict.adelay(question="q"))


async def _ask():
    return await predict.ask(question="q")


def test_forms_that_take_input_fields_alone_are_answered():
    with answers(ANSWER) as asked:
        assert predict.delay(question="q").get(timeout=1).answer == "42"
        assert asyncio.run(_adelay()).answer == "42"
        assert asyncio.run(_ask()).answer == "42"
        assert predict.s(question="q").delay().get().answer == "42"
        assert [each.answer for each in group(predict.s(question="q") for _ in range(2))().get()] == ["42", "42"]
    assert [call.inputs for call in asked] == [{"question": "q"}] * 6
