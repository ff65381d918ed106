"""A variant replaces settings of its program and of its model, once; whatever it leaves out stays theirs."""

import json
import re
from pathlib import Path

import pytest

import dspyq
from dspyq.config.differences import find_differences, find_equals
from dspyq.config.secrets import scrub
from dspyq.config.settings import load_settings
from dspyq.config.signature import parse_signature
from dspyq.config.variants import Variant
from dspyq.errors import ConfigurationError

MODELS = """
[models.fast]
model = "openai/gpt-4o-mini"
api_base = "http://127.0.0.1:1/v1"
max_tokens = 64
parameters = { top_p = 0.9, seed = 7 }
[models.strong]
model = "openai/gpt-4o"
"""
QA = (
    MODELS
    + """
[programs.qa]
signature = "question, tone: str = 'short' -> answer, sure: bool"
instructions = "Answer."
module = "ChainOfThought"
version = "3"
fields.answer.description = "short"
[programs.qa.variants.control]
model = "fast"
weight = 0.9
[programs.qa.variants.other]
model = "fast"
weight = 0.1
"""
)
CLASS = (
    MODELS
    + """
[programs.qa]
signature = "question -> answer"
class = "shop.qa:Qa"
[programs.qa.variants.other]
model = "fast"
"""
)
#: Digests of 0.2 before variants replaced anything: an answer that is cached under one of these is served on.
EARLIER = {
    "plain": (
        """
[models.fast]
model = "openai/gpt-4o-mini"
api_base = "http://127.0.0.1:1/v1"
[programs.qa]
signature = "question -> answer"
[programs.qa.variants.control]
model = "fast"
""",
        {"control": "6b83b5820f977e61a1693b9e85d3188f"},
    ),
    "everything": (
        """
dspy_version = "3.4.1"
[models.fast]
model = "openai/gpt-4o-mini"
max_tokens = 64
temperature = 0.5
parameters = { top_p = 0.9, seed = 7 }
structured_outputs = true
[models.strong]
model = "openai/gpt-4o"
[programs.qa]
signature = "question, context: list[str] = [] -> answer, sure: bool"
instructions = "Answer in one sentence."
module = "ChainOfThought"
state = "qa.json"
adapter = "JSONAdapter"
version = "3"
fields.answer.description = "short"
[programs.qa.models]
"predict.judge" = "strong"
[programs.qa.variants.control]
model = "fast"
weight = 0.9
[programs.qa.variants.challenger]
model = "strong"
weight = 0.1
""",
        {"control": "284f7cf63b2c6dd8190f854d91d0726a", "challenger": "0a4520c5a8d86c8704e7692e3b672c5f"},
    ),
    "a class": (
        """
[models.fast]
model = "openai/gpt-4o-mini"
[programs.qa]
signature = "ticket, tone -> reply"
class = "shop.reply:Reply"
state = "qa.json"
[programs.qa.variants.control]
model = "fast"
""",
        {"control": "3a576623233b044fff84d2b1e2060e78"},
    ),
}


@pytest.fixture
def load(tmp_path):
    (tmp_path / "qa.json").write_text('{"predict": {"demos": []}}')
    (tmp_path / "other.json").write_text('{"predict": {"demos": [{}]}}')

    def load(text):
        path = tmp_path / "dspyq.toml"
        path.write_text(text)
        return load_settings(path)

    return load


@pytest.fixture
def program(load):
    return lambda text: load(text).programs["qa"]


@pytest.fixture
def faults(load):
    def faults(text):
        with pytest.raises(ConfigurationError) as raised:
            load(text)
        assert all("\n" not in fault for fault in raised.value.faults)
        return raised.value.faults

    return faults


@pytest.mark.parametrize(("text", "fingerprints"), EARLIER.values(), ids=EARLIER)
def test_a_variant_that_replaces_nothing_keeps_the_fingerprint_of_earlier_versions(program, text, fingerprints):
    assert program(text).fingerprints == fingerprints


def test_a_variant_that_replaces_nothing_serves_the_program_itself(program):
    qa = program(QA)
    assert qa.served == {"control": qa, "other": qa}
    assert qa.served["other"] is qa


@pytest.mark.parametrize(
    "line",
    [
        'instructions = "Be brief."',
        'instructions = ""',
        'module = "Predict"',
        'class = "shop.qa:Other"',
        'state = "other.json"',
        'adapter = "JSONAdapter"',
        'version = "4"',
        "temperature = 0.5",
        "max_tokens = 65",
        "parameters = { top_p = 0.5 }",
        "signature = \"question, tone: str = 'short' -> answer, sure: bool, why\"",
    ],
)
def test_whatever_a_variant_replaces_changes_its_own_fingerprint_alone(program, line):
    before, after = program(QA).fingerprints, program(QA + line).fingerprints
    assert before["control"] == before["other"] == after["control"] != after["other"]


@pytest.mark.parametrize(
    "line",
    [
        'instructions = "Answer."',
        'module = "ChainOfThought"',
        'version = "3"',
        'adapter = "ChatAdapter"',
        "max_tokens = 64",
        "parameters = { seed = 7 }",
        'state = ""',
        "signature = \"question: str, tone: str = 'short' -> answer: str, sure: bool\"",
    ],
)
def test_a_value_equal_to_its_programs_changes_nothing(program, line):
    qa = program(QA + line)
    assert qa.fingerprints["other"] == qa.fingerprints["control"]


@pytest.mark.parametrize(
    ("of_program", "of_variant"),
    [
        ('state = "qa.json"\n', 'state = "qa.json"\n'),
        ('adapter = "JSONAdapter"\n', 'adapter = "JSONAdapter"\n'),
    ],
)
def test_a_setting_that_moves_from_the_program_to_its_variant_keeps_the_fingerprint(program, of_program, of_variant):
    moved = program(QA + of_variant).fingerprints["other"]
    assert program(QA.replace("[programs.qa]\n", f"[programs.qa]\n{of_program}")).fingerprints["other"] == moved


def test_an_empty_state_leaves_out_the_programs(program):
    text = QA.replace("[programs.qa]\n", '[programs.qa]\nstate = "qa.json"\n') + 'state = ""\n'
    qa = program(text)
    assert qa.served["control"].state.name == "qa.json"
    assert qa.served["other"].state is qa.served["other"].state_sha256 is None
    assert qa.fingerprints["other"] == program(QA).fingerprints["other"]


def test_the_model_of_a_variant_keeps_its_table_and_what_is_not_replaced(program):
    qa = program(QA + "temperature = 0.5\nmax_tokens = 8\nparameters = { top_p = 0.1, user = 'u' }\n")
    other, control = qa.variants["other"].model, qa.variants["control"].model
    assert (other.name, other.api_base, other.model) == (control.name, control.api_base, control.model)
    assert (other.temperature, other.max_tokens) == (0.5, 8)
    assert other.parameters == {"top_p": 0.1, "seed": 7, "user": "u"}
    assert control.parameters == {"top_p": 0.9, "seed": 7}
    assert other.setting("max_tokens") == "programs.qa.variants.other.max_tokens"
    assert other.setting("timeout_seconds") == "models.fast.timeout_seconds"


def test_a_class_takes_the_place_of_module_instructions_and_fields(program):
    served = program(QA + 'class = "shop.qa:Other"\n').served["other"]
    assert (served.class_path, served.instructions, served.fields) == ("shop.qa:Other", None, {})
    assert served.identity["module"] == "shop.qa:Other"
    assert str(served.signature) == str(program(QA).signature)


def test_a_module_takes_the_place_of_a_class(program):
    served = program(CLASS + 'module = "Predict"\ninstructions = "Answer."\n').served["other"]
    assert (served.class_path, served.module, served.instructions) == (None, "Predict", "Answer.")


def test_the_environment_replaces_what_a_variant_replaces(program, monkeypatch):
    stated = program(QA + "temperature = 0.5\ninstructions = 'Be brief.'\n").fingerprints["other"]
    monkeypatch.setenv("DSPYQ_PROGRAMS__QA__VARIANTS__OTHER__TEMPERATURE", "0.5")
    monkeypatch.setenv("DSPYQ_PROGRAMS__QA__VARIANTS__OTHER__INSTRUCTIONS", "Be brief.")
    assert program(QA).fingerprints["other"] == stated


def test_only_the_configuration_reads_what_a_variant_itself_states():
    package = Path(dspyq.__file__).parent
    merged = [*Variant.model_fields.keys() - {"name", "queue", "model", "weight", "daily_usd", "monthly_usd"}]
    own = re.compile(rf"\bvariant\.({'|'.join(sorted(merged))})\b")
    modules = [path for path in package.rglob("*.py") if path.parent != package / "config"]
    assert modules
    assert [str(path) for path in modules if own.search(path.read_text())] == []


def test_a_served_program_leads_back_to_the_whole_one(program):
    qa = program(QA + 'version = "4"\n')
    served = qa.served["other"]
    assert served.fingerprints == qa.fingerprints
    assert served.served["control"] is qa
    assert served.as_served("nobody") is served
    assert served.setting("version") == "programs.qa.variants.other.version"
    assert served.setting("adapter") == "programs.qa.adapter"
    assert qa.setting("version") == "programs.qa.version"


def test_a_description_of_a_field_that_one_variant_adds_is_that_variants_alone(program):
    text = QA + "signature = \"question, tone: str = 'short' -> answer, sure: bool, why\"\n"
    described = text.replace("fields.answer", 'fields.why.description = "A reason."\nfields.answer')
    before, after = program(text).fingerprints, program(described).fingerprints
    assert before["control"] == after["control"]
    assert before["other"] != after["other"]


def test_differences_are_those_of_what_is_served(program):
    qa = program(QA + 'class = "shop.qa:Other"\nmax_tokens = 64\nstate = "qa.json"\nparameters = { seed = 8 }\n')
    state = qa.served["other"].state_sha256[:8]
    assert find_differences(qa) == {
        "instructions": {"control": "Answer.", "other": None},
        "class": {"control": None, "other": "shop.qa:Other"},
        "module": {"control": "ChainOfThought", "other": None},
        "state": {"control": None, "other": f"qa.json ({state})"},
        "parameters.seed": {"control": 7, "other": 8},
    }
    assert find_equals(qa) == []
    assert (find_differences(program(QA)), find_equals(program(QA))) == ({}, [("control", "other")])


def test_a_secret_that_variants_differ_in_is_not_shown(program):
    stated = (
        '{ api_key = "a-secret", headers = [{ Authorization = "Bearer a-second" }], user = "sk-proj-Zx81qPl09AbcDEf2" }'
    )
    found = find_differences(program(QA + f"parameters = {stated}\n"))
    assert found.keys() == {"parameters.api_key", "parameters.headers", "parameters.user"}
    shown = json.dumps(found)
    assert not any(secret in shown for secret in ("a-secret", "a-second", "sk-proj-Zx81qPl09AbcDEf2"))


def test_a_secret_among_a_variants_parameters_is_known_as_one(load):
    load(QA + 'parameters = { extra_headers = { Authorization = "Bearer of-a-variant-alone" } }\n')
    assert "of-a-variant-alone" not in scrub("it sent of-a-variant-alone")


@pytest.mark.parametrize(
    ("line", "stated"),
    [
        (
            'signature = "question -> answer, sure: bool"',
            "programs.qa.variants.other.signature: it lacks the input tone: keep its program's inputs, and add outputs",
        ),
        (
            "signature = \"question, tone: str = 'long' -> answer\"",
            "programs.qa.variants.other.signature: it changes the input tone: str = 'short' to tone: str = 'long'",
        ),
        (
            "signature = \"question, tone: str = 'short', more -> answer: int, sure: bool\"",
            "programs.qa.variants.other.signature: it adds the input more, it changes the output answer: str to answer",
        ),
        (
            'class = "Other"',
            "programs.qa.variants.other.class: name the class with its module, as package.module:Class, not 'Other'",
        ),
        (
            'class = "shop.qa:Other"\nmodule = "Predict"',
            "programs.qa.variants.other.module: stands beside signature alone: with class, state it in the class",
        ),
        (
            'class = "shop.qa:Other"\ninstructions = "Answer."',
            "programs.qa.variants.other.instructions: stands beside signature alone: with class, state it in the class",
        ),
        (
            "temperature = 2.5",
            "programs.qa.variants.other.temperature: input should be less than or equal to 2, not 2.5",
        ),
        ("max_tokens = 0", "programs.qa.variants.other.max_tokens: input should be greater than 0, not 0"),
        ("temprature = 1", "programs.qa.variants.other.temprature: unknown key (did you mean temperature?)"),
        ("state_sha = 1", "programs.qa.variants.other.state_sha: unknown key (did you mean state?)"),
        ('module = "Chain"', "programs.qa.variants.other.module: input should be 'Predict' or 'ChainOfThought'"),
        ('signature = "question"', "programs.qa.variants.other.signature: signature 'question' must have the form"),
        ("version = 4", "programs.qa.variants.other.version: input should be a valid string, not 4"),
        ('state = "gone.json"', "programs.qa.variants.other.state: cannot read "),
    ],
)
def test_what_a_variant_cannot_have_is_one_line_that_names_table_and_key(faults, line, stated):
    (fault,) = faults(QA + line + "\n")
    assert fault.startswith(stated)


def test_an_unknown_model_stays_one_line_beside_what_would_replace_its_settings(faults):
    assert faults(QA.replace('model = "fast"\nweight = 0.1', 'model = "fsat"\ntemperature = 1\nweight = 0.1')) == (
        "programs.qa.variants.other.model: there is no [models.fsat] table (did you mean fast?)",
    )


def test_instructions_beside_the_programs_class_are_refused(faults):
    assert faults(CLASS + 'instructions = "Answer."\n') == (
        "programs.qa.variants.other.instructions: stands beside signature alone: with class, state it in the class",
    )


def test_a_module_that_would_lose_an_input_is_refused(faults):
    text = QA.replace("question, tone: str = 'short'", "reasoning").replace('"ChainOfThought"', '"Predict"')
    (fault,) = faults(text + 'module = "ChainOfThought"\n')
    assert fault.startswith("programs.qa.variants.other.module: DSPy itself uses the input names reasoning")


def test_the_faults_of_all_variants_come_at_once(faults):
    text = QA.replace("weight = 0.9", 'weight = 0.9\nsignature = "question -> answer"\n')
    stated = faults(text + 'class = "shop.qa:Other"\nmodule = "Predict"\n')
    assert [fault.partition(": ")[0] for fault in stated] == [
        "programs.qa.variants.control.signature",
        "programs.qa.variants.other.module",
    ]


def test_a_signature_of_a_variant_is_compared_once_its_programs_is_derived(program):
    text = CLASS.replace('signature = "question -> answer"\n', "") + 'signature = "question -> reply"\n'
    qa = program(text)
    with pytest.raises(ConfigurationError, match=r"programs\.qa\.variants\.other\.signature: it lacks the output ans"):
        qa.complete(parse_signature("question -> answer"))


def test_parameters_of_a_faulty_variant_are_not_shown(faults):
    (fault,) = faults(QA + 'parameters = ["a-secret"]\n')
    assert fault.startswith("programs.qa.variants.other.parameters: ")
    assert "a-secret" not in json.dumps(fault)
