"""Streams over HTTP: real servers, a real worker, and the clients that users have."""

from __future__ import annotations

import http.server
import json
import os
import queue
import shutil
import signal
import subprocess
import threading
import time
from contextlib import suppress

import httpx
import pytest

from dspyq.serve.streams.tokens import TOKEN_SECONDS, read_token, write_token
from tests.support.processes import eventually

ANSWER = "one two three four five six seven eight nine ten"
SLOW = {"outputs": {"answer": ANSWER}, "piece_characters": 6, "piece_interval_seconds": 0.06}
#: For what happens in the middle of a stream.
SLOWER = SLOW | {"piece_interval_seconds": 0.4}
KEY = bytes(32)

pytestmark = pytest.mark.usefixtures("shared_worker")


def events(lines):
    """The events in the lines of a response: name, data and id."""
    event = {}
    for line in lines:
        if not line and event.get("data") is not None:
            yield event.get("event"), json.loads(event["data"]), int(event.get("id", 0))
        if not line:
            event = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(": ")
            event[name] = value


def text_of(found):
    text = ""
    for name, data, _ in found:
        if name == "delta":
            text += data["text"]
        elif name == "reset":
            text = ""
    return text


def stream(server, question, **members):
    """Ask, and yield the events of the answer."""
    body = {"inputs": {"question": question}, "stream": True, **members}
    with server.api.stream("POST", "/v1/programs/qa/predictions", json=body) as response:
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream"
        assert response.headers["cache-control"] == "no-store, no-transform"
        yield from events(response.iter_lines())


def test_a_streamed_answer_comes_in_pieces_and_ends_with_the_prediction(door, endpoint):
    endpoint.script(**SLOW)
    server = door()
    found = list(stream(server, "streamed"))
    names = [name for name, _, _ in found]
    assert (names[0], names[-1]) == ("status", "completed")
    assert names.count("delta") > 3
    assert text_of(found) == ANSWER == found[-1][1]["outputs"]["answer"]
    places = [place for name, _, place in found if name == "delta"]
    assert places == sorted(set(places))
    assert endpoint.calls() == 1
    again = list(stream(server, "streamed"))
    assert [name for name, _, _ in again] == ["status", "delta", "completed"]
    assert (text_of(again), again[-1][1]["metadata"]["cached"]) == (ANSWER, True)


def test_curl_asks_for_events_by_its_accept_header(door, endpoint):
    endpoint.script(**SLOW)
    command = [
        shutil.which("curl"), "-sSN", "-H", "Accept: text/event-stream", "--json", '{"inputs": {"question": "curl"}}',
        f"{door().url}/v1/programs/qa/predictions",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert text_of(events(done.stdout.split("\n"))) == ANSWER


def test_a_client_goes_on_at_another_server_where_the_first_was_killed(door, endpoint):
    endpoint.script(**SLOWER)
    first, second = door(), door()
    found = []
    with suppress(httpx.HTTPError):  # its end
        for event in stream(first, "resumed"):
            found.append(event)
            if sum(name == "delta" for name, _, _ in found) == 2:
                first.kill()
    assert found[-1][0] == "delta"
    prediction = found[0][1]["id"]
    headers = {"Last-Event-ID": str(found[-1][2])}
    with second.api.stream("GET", f"/v1/predictions/{prediction}/events", headers=headers) as response:
        rest = list(events(response.iter_lines()))
    assert text_of([*found, *rest]) == ANSWER
    assert rest[-1][0] == "completed"
    assert endpoint.calls() == 1


def test_a_late_listener_gets_all_of_it_by_a_token_alone(door, endpoint):
    endpoint.script(**SLOW)
    server = door()
    list(stream(server, "late"))
    place = server.ask("late", prefer="respond-async").json()["urls"]["events"]
    with httpx.stream("GET", f"{server.url}{place}") as response:
        assert text_of(events(response.iter_lines())) == ANSWER
    other = server.ask("other", prefer="respond-async").json()["urls"]["events"]
    wrong = f"{place.partition('?')[0]}?{other.partition('?')[2]}"
    assert server.api.get(wrong).status_code == 401
    assert server.api.get(f"{place}&after=x").status_code == 422
    assert server.api.get(f"{place}&after=x", headers={"Last-Event-ID": "1"}).status_code == 422
    assert server.api.get("/v1/predictions/pred_x/events").status_code == 404


def test_a_client_that_hangs_up_for_good_ends_the_model_call(door, endpoint, settings_file):
    endpoint.script(**SLOW | {"piece_interval_seconds": 1})
    server = door(settings_file({"serve": {"hangup_seconds": 0.2}}))
    coming = stream(server, "hung up")
    while next(coming)[0] != "delta":
        pass
    coming.close()
    eventually(lambda: endpoint.counts().abandoned == 1)


def test_a_client_that_comes_back_in_time_withdraws_nothing(door, endpoint, settings_file):
    endpoint.script(**SLOWER)
    server = door(settings_file({"serve": {"hangup_seconds": 20}}))
    coming = stream(server, "back again")
    found = [next(coming)]
    while found[-1][0] != "delta":
        found.append(next(coming))
    coming.close()
    place = f"/v1/predictions/{found[0][1]['id']}/events?after={found[-1][2]}"
    with server.api.stream("GET", place) as response:
        rest = list(events(response.iter_lines()))
    assert text_of([*found, *rest]) == ANSWER
    assert endpoint.counts().abandoned == 0


def test_a_server_that_ends_sends_its_streams_elsewhere(door, endpoint):
    endpoint.script(**SLOWER)
    first, second = door(), door()
    found = []
    for event in stream(first, "moved"):
        if event[0] == "delta" and not any(name == "delta" for name, _, _ in found):
            first.send(signal.SIGTERM)
        found.append(event)
    assert found[-1][0] == "reconnect"
    prediction, after = found[0][1]["id"], found[-1][1]["after"]
    with second.api.stream("GET", f"/v1/predictions/{prediction}/events?after={after}") as response:
        rest = list(events(response.iter_lines()))
    assert text_of([*found, *rest]) == ANSWER


def test_a_cancelled_prediction_and_a_failed_one_end_their_streams(door, endpoint):
    endpoint.hold()
    server = door()
    coming = stream(server, "cancelled")
    prediction = next(coming)[1]["id"]
    threading.Timer(0.3, server.api.post, (f"/v1/predictions/{prediction}/cancel",)).start()
    assert [name for name, _, _ in coming][-1] == "cancelled"
    endpoint.release()
    endpoint.script(status=400)
    name, problem, _ = list(stream(server, "failed"))[-1]
    assert (name, problem["status"]) == ("failed", 500)


def test_a_stream_of_a_cancelled_call_ends_though_its_run_goes_on_for_another(door, endpoint):
    endpoint.hold()
    first, second = door(), door()
    coming, other = stream(first, "of two"), stream(second, "of two")
    prediction = next(coming)[1]["id"]
    began = next(other)
    endpoint.wait_for_calls(1)
    # Taken back at another server than the one that streams it, and twice: that takes nobody else's interest.
    for _ in range(2):
        assert second.api.post(f"/v1/predictions/{prediction}/cancel").json()["status"] == "cancelled"
    name, data, _ = list(coming)[-1]
    assert (name, data["status"], data["id"]) == ("cancelled", "cancelled", prediction)
    endpoint.release()
    rest = [began, *other]
    assert (rest[-1][0], text_of(rest)) == ("completed", "echo:of two")
    assert (endpoint.calls(), endpoint.counts().abandoned) == (1, 0)


def test_a_silent_stream_shows_signs_of_life(door, endpoint, settings_file):
    endpoint.hold()
    server = door(settings_file({"serve": {"heartbeat_seconds": 0.1}}))
    body = {"inputs": {"question": "silent"}, "stream": True}
    with server.api.stream("POST", "/v1/programs/qa/predictions", json=body) as response:
        lines = response.iter_lines()
        assert next(line for line in lines if line.startswith(":")) == ": heartbeat"
        endpoint.release()
        assert list(events(lines))[-1][0] == "completed"


def test_a_token_is_good_for_one_stream_for_a_while(monkeypatch):
    token = write_token("pred_a", "acme", KEY)
    assert read_token(token, "pred_a", KEY) == "acme"
    assert read_token(token, "pred_b", KEY) is None
    assert read_token(token, "pred_a", bytes([1] * 32)) is None
    assert read_token(token[:-4] + "AAAA", "pred_a", KEY) is None
    assert read_token("é€", "pred_a", KEY) is None
    assert read_token("", "pred_a", KEY) is None
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + TOKEN_SECONDS + 2)
    assert read_token(token, "pred_a", KEY) is None


PAGE = """<script>
const source = new EventSource(API + PLACE);
let text = "";
source.addEventListener("delta", (event) => { text += JSON.parse(event.data).text; });
source.addEventListener("reset", () => { text = ""; });
source.addEventListener("completed", (event) => {
  source.close();
  const answer = JSON.parse(event.data).outputs.answer;
  fetch("/done", {method: "POST", body: JSON.stringify({text, answer})});
});
</script>"""


class PageServer(http.server.ThreadingHTTPServer):
    """Serves one page, and keeps what the page posts."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _PageHandler)
        self.page = ""
        self.posted: queue.Queue[dict] = queue.Queue()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _PageHandler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(self.server.page.encode())

    def do_POST(self) -> None:
        self.server.posted.put(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.mark.skipif(shutil.which("chromium") is None, reason="Chromium is not installed")
def test_a_browser_s_event_source_gets_a_stream_from_another_origin(door, endpoint, settings_file, tmp_path):
    endpoint.script(**SLOW)
    pages = PageServer()
    server = door(settings_file({"serve": {"cors_origins": [pages.url]}}))
    place = server.ask("browser", prefer="respond-async").json()["urls"]["events"]
    pages.page = PAGE.replace("API", json.dumps(server.url)).replace("PLACE", json.dumps(place))
    command = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}", pages.url]
    browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        assert pages.posted.get(timeout=60) == {"text": ANSWER, "answer": ANSWER}
    finally:
        os.killpg(browser.pid, signal.SIGKILL)
        browser.wait()
        pages.shutdown()
        pages.server_close()
