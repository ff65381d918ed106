"""The embedded model, where its weights are here already: it is not downloaded for tests."""

import json
import urllib.request

import pytest

from dspyq.stack.embedded import weights
from dspyq.stack.embedded.model import EmbeddedModel, ModelNotStarted


def test_it_answers_as_openai_does_and_follows_a_schema():
    file = weights.cache_folder() / "SmolLM2-135M-Instruct.Q4_1.gguf"
    if not file.exists():
        pytest.skip("its weights are not here; dspyq demo fetches them")
    schema = {
        "type": "object",
        "properties": {"sentiment": {"enum": ["positive", "negative"]}},
        "required": ["sentiment"],
    }
    body = {
        "messages": [{"role": "user", "content": "I love it.\n\nIs this positive or negative? Answer as JSON."}],
        "max_tokens": 40,
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}},
    }
    with EmbeddedModel(file) as model:
        request = urllib.request.Request(  # noqa: S310 - a URL of our own
            f"{model.api_base}/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310 - as above
            reply = json.load(response)
    assert json.loads(reply["choices"][0]["message"]["content"])["sentiment"] in {"positive", "negative"}
    assert reply["usage"]["completion_tokens"] > 0
    assert reply["model"] == weights.NAME


def test_weights_that_do_not_load_are_reported_in_a_line(tmp_path):
    file = tmp_path / "no.gguf"
    file.write_bytes(b"no weights")
    with pytest.raises(ModelNotStarted, match="did not start") as refused:
        EmbeddedModel(file)
    assert "\n" not in str(refused.value)


def test_a_taken_port_is_reported_in_a_line(endpoint, tmp_path):
    port = int(endpoint.url.split(":")[2].split("/")[0])
    with pytest.raises(ModelNotStarted, match=f"port {port} is taken"):
        EmbeddedModel(tmp_path / "no.gguf", port=port)
