"""A secret is taken out of a text however it is written there, and nothing else is."""

from __future__ import annotations

import base64
import html
import json
import time
from urllib.parse import quote

import pytest

from dspyq.config.secrets import SECRET, Secrets, scrub_shapes, secrets_in

KEY = 'sk-canary/0123+45"67&89='


@pytest.fixture
def secrets() -> Secrets:
    known = Secrets()
    known.learn(KEY, is_sent=True)
    known.learn_url("redis://:p%40ss-of-redis@host:1/0")
    return known


@pytest.mark.parametrize(
    "text",
    [
        f"the key {KEY} is wrong",
        f"Authorization: Bearer {KEY}",
        json.dumps({"error": {"message": KEY}}),
        json.dumps(json.dumps(KEY)).replace("/", r"\/"),
        quote(KEY),
        quote(KEY, safe="").lower(),
        html.escape(KEY),
        repr(KEY),
        KEY.upper(),
        f"'{KEY[:9]}' '{KEY[9:]}'",
        f"{KEY[:9]}\n    {KEY[9:]}",
        f"Body starts: {KEY[:-6]}…",
        base64.b64encode(KEY.encode()).decode(),
        base64.b64encode(f"user:{KEY}".encode()).decode(),
        base64.urlsafe_b64encode(f"a-user:{KEY}".encode()).decode(),
        "p%40ss-of-redis",
        "p@ss-of-redis",
        base64.b64encode(b":p@ss-of-redis").decode(),
    ],
)
def test_a_known_secret_is_taken_out_of_an_error(secrets: Secrets, text: str) -> None:
    scrubbed = secrets.scrub(text)
    assert SECRET in scrubbed
    assert not any(
        part in scrubbed.lower() for part in ("sk-canary", "0123+45", "0123%2b45", "ss-of-redis", "y2fuyxj5")
    )


@pytest.mark.parametrize(
    ("text", "scrubbed"),
    [
        ("at https://user:pass@host/x", "at https://[secret]@host/x"),
        ("at redis://:p#a/s:s@host:1", "at redis://[secret]@host:1"),
        ("at https://token@host", "at https://[secret]@host"),
        ('{"authorization": "Bearer abc.def"}', '{"authorization": "Bearer [secret]"}'),
        ("Proxy-Authorization: Basic dXNlcjpwYXNz", "Proxy-Authorization: Basic [secret]"),
        ("x-api-key=abcdef&x=1", "x-api-key=[secret]"),
        ("bearer 0123456789abcdef0", "bearer [secret]"),
        ("GET /v1?api_key=abc&x=1", "GET /v1?api_key=[secret]&x=1"),
        ("GET /v1?x=1&sig=abc", "GET /v1?x=1&sig=[secret]"),
        ("Incorrect API key: sk-proj-abcdefghijklmnop", "Incorrect API key: [secret]"),
    ],
)
def test_what_has_the_shape_of_a_secret_is_taken_out_of_an_error(text: str, scrubbed: str) -> None:
    assert scrub_shapes(text) == scrubbed


@pytest.mark.parametrize(
    "text",
    [
        "mail a@b.c at https://host/x",
        "Bearer authentication is missing",
        "no answer within 60 s (models.m.timeout_seconds)",
        "models.m.api_key_env: the environment variable OPENAI_API_KEY is not set",
        "Connected to redis://:**@127.0.0.1:6379/0",
        "cannot reach redis://127.0.0.1:6379/0",
    ],
)
def test_an_error_without_a_secret_stays_as_it_is(secrets: Secrets, text: str) -> None:
    assert secrets.scrub(text) == text
    assert secrets.scrub_line(text) == text


def test_an_answer_loses_what_the_provider_was_sent_and_nothing_else(secrets: Secrets) -> None:
    answer = {"text": f"it is {KEY}", "urls": ["https://user:pass@host", "sk-proj-abcdefghijklmnop"], "n": 3, "x": None}
    assert secrets.scrub_answer(answer) == {**answer, "text": f"it is {SECRET}"}
    assert secrets.scrub_answer({"of Redis": "p@ss-of-redis"}) == {"of Redis": "p@ss-of-redis"}


def test_a_reply_stays_json(secrets: Secrets) -> None:
    reply = json.dumps({"choices": [{"text": KEY}], "n": 1}).encode()
    assert json.loads(secrets.scrub_reply(reply)) == {"choices": [{"text": SECRET}], "n": 1}


def test_short_words_and_placeholders_of_keys_stay_in_answers() -> None:
    secrets = Secrets()
    secrets.learn("none", "lm-studio", "EMPTY", "", None, is_sent=True)
    assert secrets.scrub_answer({"text": "none EMPTY lm-studio"}) == {"text": "none EMPTY lm-studio"}


def test_secrets_in_tables_are_found_by_their_names() -> None:
    table = {
        "api_key": "one",
        "headers": {"Authorization": "Bearer two", "X-Trace": "no"},
        "metadata": {"author": "no", "stop_token": "no"},
        "auth": ["three"],
    }
    assert set(secrets_in(table)) == {"one", "Bearer two", "two", "three"}


def test_time_is_linear_in_a_long_text(secrets: Secrets) -> None:
    text = "s k - c a n " * 20_000 + "https://" + "a:" * 20_000 + "authorization: " * 5_000 + "a" * 200_000 + "@"
    began = time.process_time()
    secrets.scrub(text)
    assert time.process_time() - began < 5
