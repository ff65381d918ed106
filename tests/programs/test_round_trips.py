"""The round trips to Redis of one model call."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dspyq.batch.account import BatchAccount
from dspyq.config.settings import load_settings
from dspyq.guards.call_records import JobRun
from dspyq.guards.ledger import Ledger
from dspyq.guards.model import Guards
from dspyq.programs.runner import build_programs
from dspyq.store.keys import alias_key
from tests.support.configuration import write_settings
from tests.support.endpoint import Endpoint
from tests.support.redis_server import RedisServer

BATCH = "00ff00ff00ff00ff"


@pytest.mark.parametrize(
    ("limit", "further"),
    [({}, 0), ({"requests_per_second": 1000.0}, 1), ({"tokens_per_minute": 10_000_000}, 1)],
    ids=["no limit", "requests", "tokens"],
)
def test_a_batch_s_call_holds_its_cost_in_a_round_trip_of_its_own_only_where_its_model_has_a_rate_limit(
    limit: dict[str, Any], further: int, endpoint: Endpoint, redis_server: RedisServer, tmp_path: Path
) -> None:
    table = {"api_base": endpoint.url, "input_usd_per_million_tokens": 1.0, "output_usd_per_million_tokens": 2.0}
    document = {
        "models": {"m": {"model": "openai/m", **table, **limit}},
        "programs": {"p": {"signature": "question -> answer", "variants": {"a": {"model": "m"}}}},
    }
    settings = load_settings(write_settings(tmp_path / "dspyq.toml", document))
    round_trips = {}
    with redis_server.client(decode_responses=False) as client:
        BatchAccount(client, BATCH).open()
        (runner,) = build_programs(settings, None, Guards(settings, client)).values()
        with closing(runner):
            for number, batch in enumerate(("", BATCH, "", BATCH)):  # the first of each load scripts
                alias = alias_key("0" * 64) if batch else ""
                ledger = Ledger(JobRun(f"t{number}", "", "p", "a", 1, batch, alias))
                with redis_server.counted() as usage:
                    assert runner.run({"question": f"q{number}"}, ledger).outputs
                round_trips[batch] = usage.round_trips
    assert round_trips[BATCH] - round_trips[""] == further
