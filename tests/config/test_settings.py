"""Settings are validated whole, and every fault is one line that names what to change."""

import json
import re
from pathlib import Path

import pytest
from pydantic import BaseModel

import dspyq
from dspyq.config.settings import Settings, load_settings
from dspyq.errors import ConfigurationError

GOOD = """
[models.fast]
model = "openai/gpt-4o-mini"
api_base = "http://127.0.0.1:1/v1"
[programs.qa]
signature = "question -> answer"
[programs.qa.variants.control]
model = "fast"
"""


@pytest.fixture
def load(tmp_path):
    def load(text):
        path = tmp_path / "dspyq.toml"
        path.write_text(text)
        return load_settings(path)

    return load


def faults(load, text):
    with pytest.raises(ConfigurationError) as raised:
        load(text)
    assert all("\n" not in fault for fault in raised.value.faults)
    return raised.value.faults


def test_a_small_file_is_enough(load):
    settings = load(GOOD)
    program = settings.programs["qa"]
    assert program.variants["control"].queue == "qa.control"
    assert program.variants["control"].weight == 1
    assert program.variants["control"].model == settings.models["fast"]
    assert settings.jobs_url == settings.answers_url == "redis://127.0.0.1:6379/0"


def test_settings_are_frozen(load):
    settings = load(GOOD)
    with pytest.raises(ValueError, match="frozen"):
        settings.programs["qa"].version = "2"


def test_every_fault_is_reported_at_once(load):
    text = """
[models.fast]
model = "gpt-4o-mini"
max_tokenz = 3
[programs.qa]
signature = "question answer"
[programs.qa.variants.control]
model = "fsat"
weight = 0.9
[programs.qa.variants.challenger]
model = "fast"
weight = 0.2
[cache]
memory_entrys = 3
"""
    told = "\n".join(faults(load, text))
    for part in (
        "there is no [models.fsat] table (did you mean fast?)",
        "the weights sum to 1.1, not 1 (control = 0.9, challenger = 0.2)",
        "models.fast.max_tokenz: unknown key (did you mean max_tokens?)",
        "models.fast.model: ",
        "programs.qa.signature: ",
        "cache.memory_entrys: unknown key (did you mean memory_entries?)",
    ):
        assert part in told


def test_a_text_of_another_form_is_answered_with_what_to_write_and_no_expression(load):
    text = """
key_prefix = "a b"
dspy_version = "latest"
[models."my model"]
model = "openai/gpt-4o-mini"
[models.fast]
model = "gpt-4o-mini"
[programs.qa]
signature = "question -> answer"
adapter = "Json"
scorers = ["brief"]
[programs.qa.variants.control]
model = "fast"
"""
    found = faults(load, text)
    assert not [fault for fault in found if "pattern" in fault or "^" in fault]
    for fault in (
        "models.fast.model: name the provider too, as openai/gpt-4o-mini, not 'gpt-4o-mini'",
        "models.my model: use up to 64 letters, digits, - and _, with a letter or digit first, not 'my model'",
        "dspy_version: state a version, as 3.4.1, not 'latest'",
        "programs.qa.scorers.0: name the function with its module, as package.module:function, not 'brief'",
    ):
        assert fault in found
    assert {fault.partition(":")[0] for fault in found} >= {"key_prefix", "programs.qa.adapter"}


@pytest.mark.parametrize("weights", [(0.5, 0.4), (0.7, 0.4), (1.0, 0.002)])
def test_weights_that_do_not_sum_to_one_are_refused(load, weights):
    text = GOOD + f"weight = {weights[0]}\n[programs.qa.variants.b]\nmodel = 'fast'\nweight = {weights[1]}\n"
    assert "the weights sum to" in faults(load, text)[0]


def test_weights_may_miss_one_by_a_rounding(load):
    load(GOOD + "weight = 0.3333\n[programs.qa.variants.b]\nmodel='fast'\nweight = 0.6666\n")


def test_an_unreadable_file_is_one_line(tmp_path):
    with pytest.raises(ConfigurationError, match=r"cannot read .*nowhere\.toml: No such file.*DSPYQ_CONFIG"):
        load_settings(tmp_path / "nowhere.toml")


def test_invalid_toml_is_one_line_with_its_place(load):
    assert "is not valid TOML" in faults(load, "[models\n")[0]
    assert "line 1" in faults(load, "[models\n")[0]


def test_a_missing_state_file_is_refused(load):
    told = faults(load, GOOD.replace("[programs.qa.variants", 'state = "qa.json"\n[programs.qa.variants', 1))
    assert "programs.qa.state: cannot read" in told[0]


def test_derived_keys_are_not_offered_as_corrections(load):
    told = faults(load, GOOD + 'queu = "x"\n')
    assert told == ("programs.qa.variants.control.queu: unknown key",)


@pytest.mark.parametrize("is_variable", [False, True])
def test_a_setting_that_was_removed_is_refused_and_names_the_one_in_its_place(is_variable, load, monkeypatch):
    if is_variable:
        monkeypatch.setenv("DSPYQ_DELIVERY__MAX_HAND_BACKS", "3")
    (told,) = faults(load, GOOD + ("" if is_variable else "[delivery]\nmax_hand_backs = 3\n"))
    assert told == (
        "delivery.max_hand_backs: removed: a job waits for a worker of its version by time; set "
        "delivery.version_wait_seconds in its place"
    )


def test_every_setting_is_read_somewhere():
    package = Path(dspyq.__file__).parent
    code = "".join(path.read_text() for path in package.rglob("*.py"))
    tables = {name: field.annotation for name, field in Settings.model_fields.items()}
    unread = [
        f"{table}.{name}"
        for table, kind in tables.items()
        if isinstance(kind, type) and issubclass(kind, BaseModel)
        for name in kind.model_fields
        if not re.search(rf"\.{name}\b", code)
    ]
    assert unread == []


def test_any_setting_can_come_from_the_environment(load, monkeypatch):
    monkeypatch.setenv("DSPYQ_CACHE__MEMORY_ENTRIES", "0")
    monkeypatch.setenv("DSPYQ_PROGRAMS__QA__VERSION", "7")
    monkeypatch.setenv("DSPYQ_REDIS_URL", "redis://elsewhere:6379/1")
    settings = load(GOOD)
    assert settings.cache.memory_entries == 0
    assert settings.programs["qa"].version == "7"
    assert settings.jobs_url == "redis://elsewhere:6379/1"


def test_an_environment_variable_that_is_no_setting_is_refused(load, monkeypatch):
    monkeypatch.setenv("DSPYQ_CASHE__MEMORY_ENTRIES", "0")
    assert "DSPYQ_CASHE__MEMORY_ENTRIES: unknown setting" in faults(load, GOOD)[0]


def test_a_url_that_is_wrong_does_not_show_its_password(load):
    (told,) = faults(load, 'redis_url = "redis//:secret@host"\n' + GOOD)
    assert told.startswith("redis_url: ")
    assert "secret" not in told


def test_jobs_and_answers_can_live_apart(load, monkeypatch):
    monkeypatch.setenv("DSPYQ_RESULT_URL", "redis://answers:6379/0")
    settings = load(GOOD)
    assert (settings.jobs_url, settings.answers_url) == ("redis://127.0.0.1:6379/0", "redis://answers:6379/0")
    assert not settings.is_one_redis


def fingerprint(load, text):
    return load(text).programs["qa"].fingerprints["control"]


@pytest.mark.parametrize(
    "change",
    [
        ('signature = "question -> answer"', 'signature = "question -> answer: bool"'),
        ('signature = "question -> answer"', 'signature = "question -> answer"\nversion = "2"'),
        ('signature = "question -> answer"', 'signature = "question -> answer"\nmodule = "ChainOfThought"'),
        ('signature = "question -> answer"', 'signature = "question -> answer"\ninstructions = "Be brief."'),
        ('signature = "question -> answer"', 'signature = "question -> answer"\nadapter = "JSONAdapter"'),
        ('model = "openai/gpt-4o-mini"', 'model = "openai/gpt-4o"'),
        ('model = "openai/gpt-4o-mini"', 'model = "openai/gpt-4o-mini"\ntemperature = 0.5'),
        ('model = "openai/gpt-4o-mini"', 'model = "openai/gpt-4o-mini"\nmax_tokens = 5'),
        ('model = "openai/gpt-4o-mini"', 'model = "openai/gpt-4o-mini"\nparameters = { top_p = 0.5 }'),
        ("http://127.0.0.1:1/v1", "http://127.0.0.1:2/v1"),
    ],
)
def test_whatever_an_answer_depends_on_changes_the_fingerprint(load, change):
    assert fingerprint(load, GOOD) != fingerprint(load, GOOD.replace(*change))


@pytest.mark.parametrize(
    "change",
    [
        ('signature = "question -> answer"', 'signature = "question:str->answer : str"'),
        ('model = "openai/gpt-4o-mini"', 'model = "openai/gpt-4o-mini"\ntimeout_seconds = 5\napi_key_env = "KEY"'),
        (
            'model = "openai/gpt-4o-mini"',
            'model = "openai/gpt-4o-mini"\ninput_usd_per_million_tokens = 1\noutput_usd_per_million_tokens = 1',
        ),
        ('signature = "question -> answer"', 'signature = "question -> answer"\ncache_ttl_seconds = 5'),
    ],
)
def test_what_no_answer_depends_on_leaves_the_fingerprint(load, change):
    assert fingerprint(load, GOOD) == fingerprint(load, GOOD.replace(*change))


@pytest.mark.parametrize("content", [b"", b'{"predict": {"demos": [', b"[]", b"\xff\xfe", b"[" * 100_000])
def test_a_state_file_that_is_not_whole_is_refused_by_producers_too(load, tmp_path, content):
    (tmp_path / "qa.json").write_bytes(content)
    (told,) = faults(load, GOOD.replace("[programs.qa.variants", 'state = "qa.json"\n[programs.qa.variants', 1))
    assert told.startswith("programs.qa.state: ")
    assert ("rename" in told) == (content != b"[]")  # which is whole, and no state


def test_the_state_files_content_is_part_of_the_fingerprint(load, tmp_path):
    text = GOOD.replace("[programs.qa.variants", 'state = "qa.json"\n[programs.qa.variants', 1)
    seen = set()
    for demos in ([], [{"question": "q", "answer": "a"}]):
        (tmp_path / "qa.json").write_text(json.dumps({"demos": demos}))
        seen.add(fingerprint(load, text))
    assert len(seen) == 2


def test_one_price_without_the_other_is_refused(load):
    text = GOOD.replace('model = "openai/gpt-4o-mini"', 'model = "openai/x"\ninput_usd_per_million_tokens = 1')
    assert "state both" in faults(load, text)[0]


def test_sentinels_need_the_name_of_their_master(load):
    url = 'redis_url = "sentinel://a:26379;sentinel://b:26379/0"\n'
    assert "sentinel_master: missing" in faults(load, url + GOOD)[0]
    assert load('sentinel_master = "jobs"\n' + url + GOOD).sentinel_master == "jobs"


NIGHTLY = """
[batches.nightly]
input = "rows-{date}.jsonl"
output = "answers-{date}.jsonl"
schedule = "0 22 * * 1-5"
"""


def test_a_batch_follows_the_clock_of_the_budget_and_finds_its_files_beside_the_configuration(load, tmp_path):
    settings = load(GOOD + '[budget]\ntimezone = "Europe/Berlin"' + NIGHTLY + 'window = "22:00-06:00"')
    batch = settings.batches["nightly"]
    assert str(batch.window) == "22:00-06:00 Europe/Berlin"
    occurrence = batch.crontab.next_after(1_795_500_000)  # a Tuesday
    assert occurrence.label == "2026-11-24T22:00"
    assert batch.files_of(occurrence.shown) == (
        tmp_path / "rows-2026-11-24.jsonl",
        tmp_path / "answers-2026-11-24.jsonl",
    )


def test_every_fault_of_a_batch_is_reported_at_once(load):
    text = (
        NIGHTLY.replace("0 22", "0 25").replace("rows-{date}", "rows-{day}")
        + 'windw = "22:00"\nprogram = "qb"\npriority = 10\n'
        + '[batches.weekly]\ninput = "rows"\noutput = "answers-{date}.jsonl"\nschedule = "0 22 * * 1"\n'
        + 'variant = "contrl"\nwindow = "6"\n'
        + '[batches.hourly]\ninput = "rows"\noutput = "hours-{date}.jsonl"\nschedule = "0 * * * *"\n'
    )
    told = "\n".join(faults(load, GOOD + text))
    for part in (
        "batches.nightly.schedule: '0 25 * * 1-5' is no crontab line: bad hour",
        "batches.nightly.input: unknown {day}",
        "batches.nightly.windw: unknown key (did you mean window?)",
        "batches.nightly.program: there is no [programs.qb] table (did you mean qa?)",
        "batches.nightly.priority: ",
        "batches.weekly.output: the same as that of [batches.nightly]",
        "batches.weekly.variant: qa has no variant 'contrl' (did you mean control?)",
        "batches.weekly.window: '6' is no span of the day",
        "batches.hourly: output needs {time}",
    ):
        assert part in told, told
