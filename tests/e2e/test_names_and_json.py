"""Inputs and outputs are plain JSON from end to end, whatever the fields are named and the values look like."""

import base64
import csv
import io
import json

import orjson
import pytest
from celery import Celery

from dspyq.celery_app.application import app
from dspyq.client.predict import _CELERY_OPTIONS
from dspyq.core.names import TASK_NAME
from dspyq.prediction.options import PREDICT_OPTIONS

#: Names that Celery, kombu, DSPy's modules or this package use for something of their own.
NAMES = sorted(
    _CELERY_OPTIONS
    | PREDICT_OPTIONS
    | {
        "task",
        "args",
        "kwargs",
        "context",
        "inputs",
        "name",
        "id",
        "model",
        "app",
        "fun",
        "uuid",
        "body",
        "sender",
        "job",
        "options",
        "row",
        "rows",
    }
    | {"question", "metadata", "outputs_", "state", "result", "meta", "predict", "run", "typing", "trace"}
)
TYPED = [
    {"__type__": "nope", "__value__": 1},
    {"__type__": "datetime", "__value__": "2026-01-01T00:00:00"},
    {"__type__": "dspyq.dict", "__value__": ["a", 1]},
    {"__type__": {"__type__": "uuid", "__value__": {}}, "__value__": [{"__type__": "bytes", "__value__": "x"}]},
]


@pytest.fixture(scope="module")
def document():
    """A program that takes every name, one whose outputs have such names, and one for values."""
    users = "tests.support.user_programs"
    program = {"variants": {"control": {"model": "control"}}}
    outputs = "metadata: str, outputs: str, get: str, keys: str, items: str, task: str"
    return {
        "workers": {"imports": ["tests.support.user_tasks"]},
        "programs": {
            "qa": None,
            "names": program | {"class": f"{users}:Names", "signature": f"{', '.join(NAMES)} -> answer"},
            "outputs": program | {"class": f"{users}:NamedOutputs", "signature": f"question -> {outputs}"},
            "values": program | {"class": f"{users}:Echo", "signature": "question: dict -> answer: dict"},
        },
    }


def test_names_and_values_survive_every_way(document, worker, settings_file, run_producer, configured):
    del configured
    path = settings_file(document)
    worker(path)

    def ask(names, typed):
        from celery import chain

        from dspyq import predict
        from dspyq.client.spread_bulk import process_bulk  # noqa: F401
        from tests.support.user_tasks import pass_on

        inputs = {name: f"the {name}" for name in names}
        expected = ",".join(inputs[name] for name in sorted(inputs))
        options = {"program": "names"}
        answers = [
            predict.apply_async(kwargs=inputs, **options).get(timeout=20).answer,
            predict.apply_async(kwargs={**inputs, "task": "own"}, task_id="own", **options).get(timeout=20).answer,
            predict.many([{**inputs, "args": "many"}], program="names")[0].get(timeout=20).answer,
            predict.si(**{**inputs, "shadow": "si"}).set(program="names").apply_async().get(timeout=20).answer,
        ]
        changed = [{}, {"task": "own"}, {"args": "many"}, {"shadow": "si"}]
        wanted = [",".join({**inputs, **change}[name] for name in sorted(inputs)) for change in changed]
        named = predict.apply_async(kwargs={"question": "q"}, program="outputs").get(timeout=20)
        values = []
        for number, value in enumerate(typed):
            handle = predict.apply_async(kwargs={"question": value}, program="values")
            own = predict.apply_async(kwargs={"question": value}, program="values", task_id=f"v{number}")
            by_celery = predict.AsyncResult(own.id).get(timeout=20)
            (row,) = predict.many([{"question": {**value, "n": value}}], program="values")
            passed = chain(
                predict.s(question=value).set(program="values"), pass_on.s({"after": value}), pass_on.s(value)
            ).apply_async()
            values.append(
                [
                    handle.get(timeout=20).answer == value,
                    by_celery.answer == value,
                    row.get(timeout=20).answer == {**value, "n": value},
                    passed.get(timeout=20) == [[value, {"after": value}], value],
                ]
            )
        return [expected == answers[0], answers == wanted, dict(named.outputs), values]

    first, ways, outputs, values = run_producer(ask, path, names=NAMES, typed=TYPED)
    assert first
    assert ways
    assert outputs == {name: f"its {name}" for name in ("metadata", "outputs", "get", "keys", "items", "task")}
    assert values == [[True] * 4] * len(TYPED)


def test_names_survive_signatures_the_command_line_and_files_of_a_batch(
    document, worker, settings_file, run_producer, dspyq, tmp_path
):
    path = settings_file(document)
    worker(path)
    inputs = {name: f"the {name}" for name in NAMES}
    expected = ",".join(inputs[name] for name in sorted(inputs))

    def ask(inputs):
        import json

        from celery import chain, group
        from celery.canvas import Signature

        from dspyq import predict
        from dspyq.celery_app.application import app

        def made():
            return predict.s(**inputs).set(program="names")

        def restored(signature):
            return Signature.from_dict(json.loads(json.dumps(signature)), app=app)

        answers = [
            made().apply_async().get(timeout=20).answer,
            made().delay().get(timeout=20).answer,
            made().clone().apply_async().get(timeout=20).answer,
            restored(made()).apply_async().get(timeout=20).answer,
            chain(made(), made().set(immutable=True)).apply_async().get(timeout=20).answer,
            *(each.answer for each in group([made(), restored(made())]).apply_async().get(timeout=20)),
        ]
        return answers, dict(made().kwargs) == inputs

    answers, is_kept = run_producer(ask, path, inputs=inputs, timeout_seconds=90)
    assert set(answers) == {expected}
    assert is_kept

    fields = [f"{name}={value}" for name, value in inputs.items()]
    for arguments in (fields, [json.dumps(inputs)]):
        shown = json.loads(dspyq("predict", "--program", "names", "--json", *arguments, settings=path).stdout)
        assert shown["outputs"] == {"answer": expected}
    forgotten = dspyq("cache", "invalidate", "--program", "names", "--json", *fields, settings=path).stdout
    assert json.loads(forgotten) == {"forgotten": 1}

    table = io.StringIO()
    csv.writer(table).writerows([list(inputs), list(inputs.values())])
    rows = {
        "flat.jsonl": json.dumps(inputs) + "\n",
        "nested.jsonl": json.dumps({"custom_id": "1", "inputs": {"inputs": inputs}["inputs"]}) + "\n",
        "rows.csv": table.getvalue(),
    }
    for name, text in rows.items():
        (tmp_path / name).write_text(text)
        out = tmp_path / f"{name}.out"
        dspyq("batch", "run", str(tmp_path / name), "--program", "names", "--output", str(out), settings=path)
        (line,) = map(json.loads, out.read_text().splitlines())
        assert line["outputs"] == {"answer": expected}, name


def body_of(kwargs):
    return base64.b64encode(orjson.dumps([[], kwargs, {}])).decode()


def test_messages_of_other_versions_are_answered_or_end_in_one_typed_error(predict, shared_worker, redis_server):
    del shared_worker
    client = redis_server.client()
    sample = predict.delay(question="sample")
    sample.get(timeout=20)
    headers = {"dspyq": sample.request.header(is_claimed=False)._asdict()}

    def outcome(question, change):
        stated = {**predict_header(question), **change}
        stated = {name: value for name, value in stated.items() if value is not None}
        sent = app.send_task(TASK_NAME, kwargs={"question": question}, queue="qa.control", headers={"dspyq": stated})
        result = predict.AsyncResult(sent.id)
        try:
            return result.get(timeout=20).answer
        except Exception as error:  # noqa: BLE001 - which one is what is asked
            return type(error).__name__

    def predict_header(question):
        from dspyq.prediction.request import build_request

        return build_request({"question": question}).header(is_claimed=False)._asdict()

    del headers, client
    assert "newer" in outcome("newer", {"a_new_field": {"x": 1}})
    assert outcome("lacking", {"fingerprint": None}) == "InvalidRequest"
    assert outcome("malformed", {"refresh": "yes"}) == "InvalidRequest"
    assert outcome("forged", {"input_hash": predict_header("another")["input_hash"]}) == "InvalidRequest"
    assert "lacking" in predict.delay(question="lacking").get(timeout=20).answer


@pytest.fixture
def foreign(redis_server):
    """Another project's plain Celery application, on kombu's own transport."""
    app = Celery("foreign", broker=redis_server.url, backend=redis_server.url, set_as_current=False)
    yield app
    app.close()


def test_a_task_that_a_plain_celery_application_sends_by_name_is_answered(foreign, shared_worker, redis_server):
    del shared_worker
    sent = foreign.send_task(TASK_NAME, kwargs={"question": "from afar"}, queue="qa.control")
    assert sent.get(timeout=20)["outputs"] == {"answer": "echo:from afar"}
    wrong = foreign.send_task(TASK_NAME, kwargs={"query": "from afar"}, queue="qa.control")
    with pytest.raises(Exception, match="question is missing"):
        wrong.get(timeout=20)
    assert not redis_server.keys("qa.control*")


def test_a_prediction_is_found_again_by_its_id(predict, shared_worker):
    del shared_worker
    answer = predict.delay(question="again").get(timeout=20)
    found = predict.AsyncResult(predict.delay(question="again").id)
    assert found.get(timeout=20).outputs == answer.outputs
