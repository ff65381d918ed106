"""Content of a lane's calls: it is in OUT and at the provider, and in nothing that operators look at."""

from __future__ import annotations

import json

from tests.lane.conftest import asleep
from tests.support.monitor import Monitor
from tests.support.processes import wait_until

CANARY = "asked-canary"


def test_no_question_and_no_answer_is_in_logs_metrics_and_commands_and_no_file_stays_at_the_provider(
    worker, begin_lane, dspyq, lane_settings, endpoint, client
):
    settings = lane_settings({"metrics": {"port": 0}}, name="watched")
    serving = worker(settings, arguments=["-l", "DEBUG"])
    endpoint.batches.script(times=1, is_manual=True, unparseable_share=0.5)
    running = begin_lane("qa", 10, settings=settings, question=CANARY)
    wait_until(lambda: asleep(client) == 10 and endpoint.batches.counts().batches == 1, 60, "no row sleeps")
    (batch,) = {key.split(b":")[4].decode() for key in client.keys("dspy:v1:budget:batch:*")}
    commands = [["lane", "show"], ["lane", "show", "--json"], ["batch", "status", batch]]
    commands += [["batch", "status", batch, "--json"], ["batch", "list", "--json"]]

    def shown():
        done = {str(each): dspyq(*each, settings=settings, env={"COLUMNS": "300"}) for each in commands}
        page = Monitor.of(serving).get("/metrics")[1]
        return {"metrics": page} | {command: each.stdout + each.stderr for command, each in done.items()}

    asleep_texts = shown()
    (shipment,) = json.loads(asleep_texts[str(commands[1])])[0]["shipments"]
    endpoint.batches.finish()
    done = running.result(90)
    wait_until(lambda: client.keys("dspy:v1:lane:*:shipments") == [], 60, "its shipments are not closed")
    commands.append(["lane", "show", "--past", "10", "--json"])
    ended_texts = shown()

    assert len(done.answers) == 10
    assert all(CANARY in answer for answer in done.answers)
    log = serving.logs()
    assert "lane_closed" in log
    assert shipment["name"] in log
    assert 'dspy_lane_lines{model="control",state="shipped"} 10.0' in asleep_texts["metrics"]
    texts = {"log": log, "batch run": done.text} | asleep_texts
    assert [name for name, text in (*texts.items(), *ended_texts.items()) if "canary" in text] == []
    assert endpoint.batches.counts().uploads >= 1
    assert endpoint.batches.files() == []
