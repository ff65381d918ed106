"""Each form of a row is read for its program, and a bad one has a place and a reason without a quote."""

import pytest

from dspyq.batch.files.rows import RowReader
from dspyq.config.programs import Program


def program(signature="question -> answer", **options):
    variant = {"name": "control", "queue": "qa.control", "model": {"name": "fast", "model": "openai/fast"}}
    return Program(name="qa", signature=signature, variants={"control": variant}, **options)


def read(text, signature="question -> answer", **options):
    return RowReader(program(signature, **options)).from_json(text.encode(), 3, 17)


def chat(*messages, body=None, **request):
    stated = {"messages": [{"role": role, "content": content} for role, content in messages]} | (body or {})
    return {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": stated} | request


def openai(value, signature="question -> answer", **options):
    return RowReader(program(signature, **options)).from_object(value, 3, 17)


@pytest.mark.parametrize(
    ("text", "custom_id"),
    [
        ('{"custom_id": "a", "inputs": {"question": "x"}}', "a"),
        ('{"inputs": {"question": "x"}}', "17"),
        ('{"question": "x", "custom_id": "a"}', "a"),
        ('{"question": "x", "custom_id": 7}', "7"),
        ('{"question": "x", "custom_id": null}', "17"),
        ('{"question": "x"}', "17"),
    ],
)
def test_nested_and_flat_rows_are_equal(text, custom_id):
    row = read(text)
    assert (row.custom_id, row.inputs, row.fault, row.number, row.where) == (
        custom_id,
        {"question": "x"},
        None,
        3,
        "line 17",
    )


def test_a_field_of_the_program_named_like_a_part_of_a_row_comes_first():
    flat = read('{"custom_id": "an input", "question": "x"}', "custom_id, question -> answer")
    assert (flat.custom_id, flat.inputs) == ("17", {"custom_id": "an input", "question": "x"})
    nested = read('{"custom_id": "a", "inputs": {"custom_id": "an input"}}', "custom_id -> answer")
    assert (nested.custom_id, nested.inputs) == ("a", {"custom_id": "an input"})
    assert read('{"inputs": {"x": 1}}', "inputs: dict -> answer").inputs == {"inputs": {"x": 1}}
    assert read('{"inputs": {"inputs": {"x": 1}}}', "inputs: dict -> answer").inputs == {"inputs": {"x": 1}}


@pytest.mark.parametrize(
    ("text", "kind", "reason"),
    [
        ("{secret", "NotJson", "line 17: not JSON (unexpected character"),
        ('{"question": NaN}', "NotJson", "NaN and infinity have no form in JSON"),
        ('{"question": -Infinity}', "NotJson", "NaN and infinity have no form in JSON"),
        ('["secret"]', "InvalidRow", "line 17: not an object of input fields"),
        ('{"inputs": "secret"}', "InvalidRow", "inputs is not an object"),
        ('{"inputs": {"question": "secret"}, "secret": 1}', "InvalidRow", "beside inputs a row holds custom_id"),
        ('{"question": "x", "custom_id": ["secret"]}', "InvalidRow", "custom_id is a text of 1 to 512"),
        ('{"question": "x", "custom_id": ""}', "InvalidRow", "custom_id is a text of 1 to 512"),
    ],
)
def test_a_bad_row_states_its_line_and_reason_and_quotes_nothing(text, kind, reason):
    row = read(text)
    assert row.inputs is None
    assert row.fault.type == kind
    assert reason in row.fault.message
    assert "secret" not in row.fault.message


def test_text_that_is_no_utf_8_is_reported_with_its_byte():
    row = RowReader(program()).from_json(b'{"question": "\xff"}', 3, 17)
    assert row.fault == ("NotUtf8", "line 17: not UTF-8 (byte 15 of the line)")


def test_a_chat_request_with_one_user_message_is_the_programs_one_text():
    assert openai(chat(("user", "x"))).inputs == {"question": "x"}
    parts = [{"type": "text", "text": "x"}, {"type": "text", "text": "y"}]
    row = openai(chat(("system", "Be brief."), ("user", parts), body={"model": "m"}), instructions="Be brief.")
    assert (row.custom_id, row.inputs) == ("a", {"question": "xy"})


@pytest.mark.parametrize(
    ("value", "signature", "reason"),
    [
        (chat(("user", "x")), "question, context -> answer", "takes more than one text"),
        (chat(("user", "x")), "number: int -> answer", "takes more than one text"),
        (chat(("system", "Be rude."), ("user", "x")), "question -> answer", "its system message is not the"),
        (chat(("user", "x"), ("assistant", "y"), ("user", "z")), "question -> answer", "only one user message"),
        (chat(("assistant", "x")), "question -> answer", "only one user message"),
        (chat(("user", [{"type": "image_url"}])), "question -> answer", "parts that are not text"),
        (chat(("user", "x"), body={"tools": []}), "question -> answer", "contains more than messages"),
        (chat(("user", "x"), url="/v1/embeddings"), "question -> answer", "only a POST to /v1/chat/completions"),
        (chat(body={"messages": "x"}), "question -> answer", "not a list of messages"),
    ],
)
def test_a_chat_request_that_the_program_cannot_serve_is_a_faulty_row_under_its_own_id(value, signature, reason):
    row = openai(value, signature)
    assert (row.custom_id, row.inputs, row.fault.type) == ("a", None, "UnsupportedRequest")
    assert reason in row.fault.message


def test_a_system_message_is_that_of_the_variant_for_which_rows_are_read():
    model = {"name": "fast", "model": "openai/fast"}
    variants = {name: {"name": name, "queue": f"qa.{name}", "model": model} for name in ("control", "brief")}
    variants["brief"]["instructions"] = "Be brief."
    asked = Program(name="qa", signature="question -> answer", instructions="Answer.", variants=variants)
    row = chat(("system", "Be brief."), ("user", "x"))
    assert RowReader(asked.as_served("brief")).from_object(row, 1, 1).inputs == {"question": "x"}
    for reader in (RowReader(asked), RowReader(asked.as_served("control"))):
        assert reader.from_object(row, 1, 1).fault.type == "UnsupportedRequest"
