"""Kinds of keys: each belongs to the spine or to the money, and no script touches both."""

from collections import defaultdict

import pytest

from dspyq.store.keys import KEY_KINDS
from dspyq.store.script_text import read_script
from dspyq.store.scripts import load_script
from tests.store.test_script_text import every_script

SIDES = {kind.name: kind.side for kind in KEY_KINDS}
STARTS = {kind.namespace + kind.start: kind.name for kind in KEY_KINDS if kind.start}
#: Commands all of whose arguments are keys; of others it is the first.
OF_KEYS_ALONE = frozenset({"DEL", "EXISTS", "MGET"})


def sides(kinds):
    return {SIDES[kind] for kind in kinds}


def kind_of(key):
    """The kind of a key or channel; a queue's list of bells is named as the queue."""
    fitting = [start for start in STARTS if key.startswith(start)]
    if not fitting:
        assert key == "qa.control", f"{key} is of no kind that dspyq/store/keys.py declares"
        return "BELLS"
    return STARTS[max(fitting, key=len)]


def touched_by(scripts, commands):
    """The kinds of keys that each of these scripts touched, by its hash; kombu has scripts of its own."""
    touched, running = defaultdict(set), None
    for command in commands:
        words = command.text.split(" ")
        if not command.is_in_script:
            running = words[1] if command.name in {"EVALSHA", "EVALSHA_RO"} else None
        elif running in scripts and len(words) > 1 and command.name != "TIME":
            names = words[1:] if command.name in OF_KEYS_ALONE else words[1:2]
            touched[running] |= {kind_of(name) for name in names}
    return touched


@pytest.mark.parametrize(("package", "name"), sorted(every_script()))
def test_a_script_names_keys_of_one_side(package, name):
    kinds = read_script(package, name).key_kinds
    assert len(sides(kinds)) <= 1, kinds


def test_scripts_touch_the_kinds_of_keys_that_they_name(predict, shared_worker, redis_server):
    from dspyq.batch.account import BatchAccount
    from dspyq.client.spread_bulk import process_bulk
    from dspyq.store.clients import jobs_client

    del shared_worker
    BatchAccount(jobs_client(), "a").open(max_usd=1, budget_share=0.5, rate_share=0.5)
    with redis_server.monitored() as commands:
        predict.delay(question="one").get(timeout=20)
        predict.many([{"question": "one"}, {"question": "two"}])[1].get(timeout=20)
        request = predict.delay(question="three").request
        claims = process_bulk().ask([request], ["4"], priority=0, batch="a")
        process_bulk().recall([(request, claims[0].task_id)], batch="a")
        (paid,) = process_bulk().ask([request], ["5"], priority=0, batch="a")
        predict.AsyncResult(paid.task_id).get(timeout=20)
        predict.many([{"question": "four"}])[0].get(timeout=20)  # the last rows were known, so claim and put
    stated = {load_script(jobs_client(), *script).sha: (script[1], read_script(*script)) for script in every_script()}
    touched = touched_by(stated, commands)
    assert {stated[sha][0] for sha in touched} >= {
        "claim",
        "ask_new",
        "put",
        "take",
        "hold",
        "rate_reserve",
        "settle",
        "answer",
    }
    for sha, kinds in touched.items():
        name, text = stated[sha]
        assert kinds <= text.key_kinds, name
        assert len(sides(kinds)) == 1, name
