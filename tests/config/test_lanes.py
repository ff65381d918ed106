"""Settings of lanes: defaults, and each fault in one line that names what to change."""

import pytest

from dspyq.config.settings import load_settings
from dspyq.errors import ConfigurationError

MODEL = """
[models.fast]
model = "openai/gpt-4o-mini"
"""
PROGRAM = """
[programs.qa]
signature = "question -> answer"
[programs.qa.variants.control]
model = "fast"
"""
CLASS = """
[programs.qa]
signature = "question -> answer"
class = "shop.programs:Answer"
[programs.qa.variants.control]
model = "fast"
"""
NIGHTLY = """
[batches.nightly]
input = "in-{date}.jsonl"
output = "out-{date}.jsonl"
schedule = "0 22 * * *"
lane = "provider"
"""


@pytest.fixture
def load(tmp_path):
    def load(text):
        path = tmp_path / "dspyq.toml"
        path.write_text(text)
        return load_settings(path)

    return load


@pytest.fixture
def faults(load):
    def faults(text):
        with pytest.raises(ConfigurationError) as raised:
            load(text)
        assert all("\n" not in fault for fault in raised.value.faults)
        return list(raised.value.faults)

    return faults


@pytest.mark.parametrize(
    ("model", "protocol"),
    [
        ('model = "openai/gpt-4o-mini"', "openai"),
        ('model = "anthropic/claude-haiku-4-5"', "anthropic"),
        ('model = "gemini/gemini-2.5-flash"', "gemini"),
        ('model = "mistral/small"', None),
        ('model = "openai/x"\napi_base = "http://127.0.0.1:1/v1"', None),
        ('model = "openai/x"\napi_base = "http://127.0.0.1:1/v1"\nbatch = "openai"', "openai"),
        ('model = "openai/gpt-4o-mini"\nbatch = "off"', None),
    ],
)
def test_a_model_has_its_providers_batch_interface_unless_it_has_an_address_of_its_own(load, model, protocol):
    assert load(f"[models.fast]\n{model}").models["fast"].batch_protocol == protocol


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('[models.fast]\nmodel = "openai/x"\nbatch_discount = 1.5', "models.fast.batch_discount"),
        ('[models.fast]\nmodel = "openai/x"\nbatch_discount = 1', "models.fast.batch_discount"),
        ('[models.fast]\nmodel = "openai/x"\nbatch_discount = -0.1', "models.fast.batch_discount"),
        ('[models.fast]\nmodel = "openai/x"\nbatch = "bedrock"', "models.fast.batch"),
        ('[models.fast]\nmodel = "openai/x"\nbatch_max_lines = 0', "models.fast.batch_max_lines"),
        ("[lane]\nhold_share = 0", "lane.hold_share"),
        ("[lane]\nfirst_poll_seconds = 0", "lane.first_poll_seconds"),
        ('[lane]\nfinish_by = "25:00"', "lane.finish_by: '25:00' is no hour of the day; write it as 07:00"),
        (f'{MODEL}{PROGRAM}{NIGHTLY}finish_by = "7 am"', "batches.nightly.finish_by: '7 am' is no hour of the day"),
        (f"{MODEL}{PROGRAM}{NIGHTLY.replace('provider', 'night')}", "batches.nightly.lane"),
        (f"{MODEL}{PROGRAM}{NIGHTLY.replace('provider', 'provider,wait')}", "batches.nightly.lane"),
        (f'{MODEL}{PROGRAM}{NIGHTLY}tenant = "a b"', "batches.nightly.tenant"),
    ],
)
def test_a_wrong_setting_of_a_lane_is_one_line_that_names_it(faults, text, named):
    assert [fault[: len(named)] for fault in faults(text)] == [named]


def test_a_batch_that_is_to_finish_by_an_hour_needs_a_lane(faults):
    text = f"{MODEL}{PROGRAM}{NIGHTLY.replace('lane =', 'finish_by =').replace('provider', '07:00')}"
    assert faults(text) == ["batches.nightly: finish_by is for batches with a lane: set lane too, or leave it out"]


def test_a_class_must_state_that_it_is_fit_for_the_providers_lane(load, faults):
    assert faults(f"{MODEL}{CLASS}{NIGHTLY}") == [
        (
            "batches.nightly.lane: programs.qa.class: its code runs again for each call that waited; state "
            'programs.qa.lanes = ["provider"] where that does no harm, or leave out the lane'
        )
    ]
    stated = CLASS.replace("[programs.qa]", '[programs.qa]\nlanes = ["provider"]')
    assert load(f"{MODEL}{stated}{NIGHTLY}").batches["nightly"].lane == "provider"
    assert load(f"{MODEL}{CLASS}{NIGHTLY.replace('provider', 'flex')}").batches["nightly"].lane == "flex"


def test_a_lane_that_ends_with_its_money_is_a_providers_lane_too(load, faults):
    stopping = NIGHTLY.replace("provider", "provider,stop")
    assert load(f"{MODEL}{PROGRAM}{stopping}").batches["nightly"].lane == "provider,stop"
    assert len(faults(f"{MODEL}{CLASS}{stopping}")) == 1


def test_a_signature_that_states_no_lanes_is_not_served_in_one(faults):
    stated = PROGRAM.replace("[programs.qa]", "[programs.qa]\nlanes = []")
    assert len(faults(f"{MODEL}{stated}{NIGHTLY}")) == 1


def test_a_lane_needs_a_model_with_a_batch_interface(faults):
    text = f'{MODEL}api_base = "http://127.0.0.1:1/v1"\n{PROGRAM}{NIGHTLY}'
    assert faults(text) == [
        (
            "batches.nightly.lane: models.fast.batch: this model has no batch interface; state "
            'batch = "openai" where its endpoint has one, or leave out the lane'
        )
    ]
