"""DSPy's version is part of every fingerprint, though producers have no DSPy: the configuration states it."""

import pytest

from dspyq.config.settings import load_settings
from dspyq.errors import ConfigurationError

TABLES = """
[models.fast]
model = "openai/gpt-4o-mini"
[programs.qa]
signature = "question -> answer"
{own}
[programs.qa.variants.control]
model = "fast"
"""


@pytest.fixture
def load(tmp_path):
    def load(top="", own=""):
        path = tmp_path / "dspyq.toml"
        path.write_text(top + TABLES.format(own=own))
        return load_settings(path)

    return load


def fingerprint(settings):
    return settings.programs["qa"].fingerprints["control"]


def test_fingerprints_of_version_0_1_survive(load):
    """Computed by 0.1 of this very file: its cached answers and queued jobs stay what they are."""
    assert fingerprint(load()) == "81da2c1f84e19b467161f57a8bf3f4d7"
    assert fingerprint(load('dspy_version = "3.4.1"')) == fingerprint(load())


def test_another_dspy_makes_another_fingerprint(load, monkeypatch):
    other = fingerprint(load('dspy_version = "3.4.2"'))
    assert other != fingerprint(load())
    monkeypatch.setenv("DSPYQ_DSPY_VERSION", "3.4.2")
    assert fingerprint(load()) == other


@pytest.mark.parametrize(
    ("top", "own", "fault"),
    [
        ('dspy_version = "newest"', "", "dspy_version: "),
        ("dspy_version = 3.4", "", "dspy_version: "),
        ("", 'dspy_version = "3.4.1"', "programs.qa.dspy_version: all programs have one: state it above the tables"),
    ],
)
def test_a_version_that_cannot_be_is_one_line(load, top, own, fault):
    with pytest.raises(ConfigurationError) as raised:
        load(top, own)
    assert len(raised.value.faults) == 1
    assert raised.value.faults[0].startswith(fault)


def test_a_worker_refuses_another_dspy_in_one_line_with_both_remedies(load):
    dspy = pytest.importorskip("dspy")
    from dspyq.programs.runner import build_programs

    with pytest.raises(ConfigurationError) as raised:
        build_programs(load('dspy_version = "3.4.0"'))
    (fault,) = raised.value.faults
    assert fault.startswith(
        f"dspy {dspy.__version__} is installed, but dspy_version is 3.4.0: pip install dspy==3.4.0, "
    )
    assert f'set dspy_version = "{dspy.__version__}" in the configuration file of producers and workers' in fault
