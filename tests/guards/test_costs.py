"""The books: what calls cost by day, program, variant and model, and what the cache saved."""

import time

from dspyq.config.periods import Calendar as RealCalendar
from dspyq.guards.billing import Bill, BilledCall
from dspyq.guards.budget import Budget
from dspyq.guards.cost_bound import bound_nano_usd
from dspyq.guards.costs import Costs, OldBooks, read_costs
from tests.support.budgets import PREFIX, Calendar, call, do, settings


def spend(client, day, *bills, variant="a", model="m", first=0):
    budget = Budget(client, settings(), Calendar(day))
    for number, bill in enumerate(bills, first):
        billed = BilledCall(f"{day} {variant} {model} {number}", "qa", variant, model)
        do(client, budget.hold(billed, 100), budget.settle(billed, bill))


def test_the_books_state_the_cost_of_each_variant_and_model_by_day(client):
    spend(client, "2026-11-24", Bill(5, 10, 20), Bill(6, 1, 2), Bill(None))
    spend(client, "2026-11-24", Bill(7), variant="b", model="n")
    spend(client, "2026-11-23", Bill(8))
    spend(client, "2026-11-21", Bill(9))
    calendar = Calendar("2026-11-24")
    assert read_costs(client, settings(), days=3, calendar=calendar) == [
        Costs("2026-11-24", "qa", "a", "m", 3, 11, 22, 11, 1, 100),
        Costs("2026-11-24", "qa", "b", "n", 1, billed_nano_usd=7),
        Costs("2026-11-23", "qa", "a", "m", 1, billed_nano_usd=8),
    ]
    assert read_costs(client, settings(), days=1, calendar=Calendar("2026-11-22")) == []


def test_what_hits_saved_stands_with_the_model_that_the_variant_has_and_adds_to_what_0_1_booked(client):
    spend(client, "2026-11-24", Bill(5), model="before")
    client.hset(f"{PREFIX}costs:2026-11-24", "qa.a avoided_nano_usd", 40)
    client.hset(f"{PREFIX}savings:2026-11-24", mapping={"qa.a avoided_nano_usd": 2, "gone.a avoided_nano_usd": 50})
    found = read_costs(client, settings(), days=1, calendar=Calendar("2026-11-24"))
    assert [(line.program, line.model, line.calls, line.avoided_nano_usd) for line in found] == [
        ("gone", "", 0, 50),
        ("qa", "before", 1, 0),
        ("qa", "m", 0, 42),
    ]


def fold(client, on):
    return OldBooks(client, settings(), Calendar(on)).fold()


def test_the_books_of_old_days_are_folded_without_a_change_also_later_entries(client):
    old = f"{PREFIX}costs:2026-11-24"
    spend(client, "2026-11-24", Bill(5, 10, 20), Bill(None))
    spend(client, "2026-11-24", Bill(7), variant="b", model="n")
    client.hincrby(old, "qa.a avoided_nano_usd", 40)
    client.hincrby(f"{PREFIX}savings:2026-11-24", "qa.a avoided_nano_usd", 2)
    spend(client, "2026-12-20", Bill(8))
    calendar = Calendar("2026-12-25")
    whole, lasting = read_costs(client, settings(), days=90, calendar=calendar), client.ttl(old)
    assert fold(client, "2026-12-24") == 0
    assert fold(client, "2026-12-25") == 1
    assert read_costs(client, settings(), days=90, calendar=calendar) == whole
    assert not client.exists(old)
    assert client.hlen(f"{old}:folded") == 3
    assert lasting - 5 <= client.ttl(f"{old}:folded") <= lasting
    assert fold(client, "2026-12-25") == 0
    spend(client, "2026-11-24", Bill(6, 1, 2), first=5)
    first, *others = read_costs(client, settings(), days=90, calendar=calendar)[1:]
    assert first == Costs("2026-11-24", "qa", "a", "m", 3, 11, 22, 11, 1, 100, 42)
    late = read_costs(client, settings(), days=90, calendar=calendar)
    assert fold(client, "2026-12-26") == 1
    assert read_costs(client, settings(), days=90, calendar=calendar) == late
    assert others == whole[2:]


def test_a_worker_folds_old_days_once_a_day_and_no_damaged_amount(client):
    books = OldBooks(client, settings(), Calendar("2026-12-25"))
    for number in range(7):
        spend(client, f"2026-11-{number + 1:02}", Bill(5))
    client.hset(f"{PREFIX}costs:2026-11-01", "qa.a m calls", "odd")
    assert sum(iter(books.fold, 0)) == 7
    assert client.hgetall(f"{PREFIX}costs:2026-11-01") == {b"qa.a m calls": b"odd"}
    spend(client, "2026-11-02", Bill(6), first=5)
    assert books.fold() == 0


def today(client, timezone="UTC"):
    seconds, _ = client.time()
    return RealCalendar(timezone).at(seconds).today


def test_a_hit_adds_what_its_answer_had_cost(shared_worker, run_producer, configured, client):
    del shared_worker, configured

    def ask():
        import time

        from dspyq import predict
        from dspyq.cache.memory import process_cache

        while not process_cache().is_trusted:
            time.sleep(0.01)
        costs = []
        for _ in range(4):
            metadata = predict.delay(question="q").get(timeout=20).metadata
            costs.append([metadata.cache_level, round(metadata.cost_usd * 1e9)])
        return costs

    computed, *hits = run_producer(ask)
    assert [level for level, _ in hits] == ["memory"] * 3
    first, *more = run_producer(ask)
    assert [first[0], *(level for level, _ in more)] == ["redis", "memory", "memory", "memory"]
    saved = int(client.hget(f"{PREFIX}savings:{today(client)}", "qa.control avoided_nano_usd"))
    assert computed[1] > 0
    assert saved == 7 * computed[1]
    assert client.ttl(f"{PREFIX}savings:{today(client)}") > 365 * 86_400


def test_a_caller_that_joined_a_run_saved_its_cost(predict, configured, client):
    from dspyq.cache.claim import Run, Stored
    from dspyq.cache.claims import process_claims
    from dspyq.prediction.request import build_request
    from dspyq.store.clients import jobs_client

    del configured
    handles = [predict.delay(question="q") for _ in range(3)]
    stored = Stored(b"{}", 60, 60, {"successes": 1}, cost_nano_usd=10**12)
    process_claims().answer(build_request({"question": "q"}), Run(handles[0].id), stored)
    assert int(jobs_client().hget(f"{PREFIX}savings:{today(client)}", "qa.control avoided_nano_usd")) == 2 * 10**12


def test_a_hit_counts_what_it_saved_with_one_command_more_in_the_same_round_trip(predict, configured, redis_server):
    from dspyq.cache.claim import Run, Stored
    from dspyq.cache.claims import process_claims
    from dspyq.prediction.request import build_request

    del configured
    request = build_request({"question": "q"})
    stored = f'{{"input_hash":"{request.input_hash}"}}'.encode()  # as an answer names its question
    counted = {}
    for name, cost in (("free", 0), ("costs", 5)):
        handle = predict.delay(question="q")
        process_claims().answer(request, Run(handle.id), Stored(stored, 60, 60, {}, cost_nano_usd=cost))
        process_claims().claim(request, "warm", priority=0)  # the first hit of a day also says when the book ends
        with redis_server.monitored() as commands:
            process_claims().claim(request, "other", priority=0)
        counted[name] = [
            command.name for command in commands if command.is_in_script or command.name.startswith("EVAL")
        ]
        process_claims().invalidate([request.input_hash])
    assert counted["costs"] == [*counted["free"], "HINCRBY"]
    assert counted["free"].count("EVALSHA") == 1


def test_an_answer_that_its_redis_has_forgotten_saves_nothing(run_producer, redis_server):
    answers_url = redis_server.url.removesuffix("/0") + "/1"

    def ask():
        from dspyq import predict
        from dspyq.cache.claim import Run, Stored
        from dspyq.cache.claims import process_claims
        from dspyq.prediction.request import build_request
        from dspyq.store.clients import answers_client, jobs_client
        from dspyq.store.keys import savings_key

        request = build_request({"question": "q"})
        handle = predict.delay(question="q")
        process_claims().answer(request, Run(handle.id), Stored(b"{}", 60, 60, {}, cost_nano_usd=5))
        answers_client().flushdb()
        verdict = process_claims().claim(request, "other", priority=0).verdict
        (savings,) = jobs_client().keys(savings_key("*"))
        return [verdict, int(jobs_client().hget(savings, "qa.control avoided_nano_usd"))]

    assert run_producer(ask, env={"DSPYQ_RESULT_URL": answers_url}) == ["claim", 0]


def test_a_bound_is_no_less_than_any_bill_it_covers():
    prices = {"input_usd_per_million_tokens": 0.15, "output_usd_per_million_tokens": 0.6}
    assert bound_nano_usd(prompt_tokens=128, completion_tokens=64, **prices) == 128 * 150 + 64 * 600
    tiny = {"input_usd_per_million_tokens": 0.0001, "output_usd_per_million_tokens": 0.0}
    assert bound_nano_usd(prompt_tokens=1, completion_tokens=1, **tiny) == 1  # rounded up
    free = {"input_usd_per_million_tokens": 0, "output_usd_per_million_tokens": 0}
    assert bound_nano_usd(prompt_tokens=10**6, completion_tokens=4096, **free) == 0


def test_a_day_is_one_of_the_budgets_timezone(client):
    kiritimati = settings(budget={"timezone": "Pacific/Kiritimati"})  # 14 hours ahead
    budget = Budget(client, kiritimati)
    do(client, budget.hold(call(), 100), budget.settle(call(), Bill(5)))
    (line,) = read_costs(client, kiritimati, days=1)
    assert line.day == RealCalendar("Pacific/Kiritimati").at(time.time()).today
