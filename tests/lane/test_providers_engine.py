"""A request's whole way through a batch interface, from DSPy's form to its reply, beside the same request live."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from dspy import ChatAdapter, Signature, lm15

from dspyq.config.models import Model
from dspyq.lane.providers.choice import provider_for
from dspyq.lane.providers.protocol import BatchProvider, LineOutcome
from dspyq.programs.deadline import deadline
from dspyq.programs.engine import Engine
from dspyq.programs.provider_call import ProviderCall
from tests.lane.provider_support import PROTOCOLS, ended, results
from tests.support.endpoint import Endpoint

QA = Signature("question -> answer")


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def engine(endpoint: Endpoint, protocol: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setenv("BATCH_KEY", "key-of-the-batches")
    model = Model(
        name="fast",
        model=f"{protocol}/m",
        api_base=endpoint.url + ("beta" if protocol == "gemini" else ""),
        api_key_env="BATCH_KEY",
        input_usd_per_million_tokens=1,
        output_usd_per_million_tokens=2,
    )
    engine = Engine(model)
    yield engine
    engine.close()


@pytest.fixture
def provider(engine: Engine, protocol: str) -> BatchProvider:
    return provider_for(protocol, engine.batch_wire.access())


def request_of(protocol: str, question: str) -> Any:
    messages = ChatAdapter().format(QA, [], {"question": question})
    return lm15.request_from_openai_chat({"model": f"{protocol}/m", "messages": messages, "max_tokens": 200})


def test_a_reply_of_a_batch_is_that_of_a_live_call_at_half_the_price(
    endpoint: Endpoint, engine: Engine, provider: BatchProvider, protocol: str
) -> None:
    questions = [f"why {number}?" for number in range(4)]
    lines = [
        (f"q-{number}", engine.batch_wire.line_body(request_of(protocol, question)) or b"")
        for number, question in enumerate(questions)
    ]
    if provider.has_files:
        batch = provider.create("dspyq-1", file_id=provider.upload("dspyq-1", lines))
    else:
        batch = provider.create("dspyq-1", lines=lines)
    found = results(provider, ended(provider, batch.id))

    spent_usd = 0.0
    for number, question in enumerate(questions):
        line = found[f"q-{number}"]
        reply, dumped = engine.batch_wire.answer(line.status or 0, line.body or {})
        live, _ = engine.attempt(request_of(protocol, question), deadline(30))
        assert reply.response.text == live.text
        assert ChatAdapter().parse(QA, ProviderCall.load(dumped or b"").text) == {"answer": f"echo:{question}"}
        assert (reply.prompt_tokens, reply.completion_tokens) == (live.usage.input_tokens, live.usage.output_tokens)
        spent_usd += reply.cost_usd or 0.0
    bill = endpoint.batches.bill()
    assert round(spent_usd * 1e9) == bill.batch_nano_usd == bill.live_nano_usd // 2


@pytest.mark.parametrize("status", [400, 429, 503])
def test_an_error_of_a_line_is_classified_as_that_of_a_live_call(
    endpoint: Endpoint, engine: Engine, provider: BatchProvider, protocol: str, status: int
) -> None:
    endpoint.script(status=status)
    lines = [("q-1", engine.batch_wire.line_body(request_of(protocol, "why?")) or b"")]
    if provider.has_files:
        batch = provider.create("dspyq-1", file_id=provider.upload("dspyq-1", lines))
    else:
        batch = provider.create("dspyq-1", lines=lines)
    line = results(provider, ended(provider, batch.id))["q-1"]
    assert line.outcome is (LineOutcome.FAILED if status == 400 else LineOutcome.UNANSWERED)

    with pytest.raises(lm15.ProviderError) as raised:
        engine.batch_wire.answer(line.status or 0, line.body or {})
    call = ProviderCall(engine, request_of(protocol, "why?"))
    with pytest.raises(lm15.ProviderError) as live:
        call.attempt(30)
    assert type(raised.value) is type(live.value)
    assert engine.batch_wire.classify(raised.value).kind == call.classify(live.value).kind
