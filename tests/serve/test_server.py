"""A server process: what it checks of a request, what it shows of itself, and how it begins and ends."""

from __future__ import annotations

import json
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.support.processes import eventually, free_port

ASK = "/v1/programs/qa/predictions"


def slug(reply):
    assert reply.headers["content-type"] == "application/problem+json", reply.text
    problem = reply.json()
    assert problem["status"] == reply.status_code
    return problem["type"].rpartition("/")[2]


class TestRequests:
    """None of these needs a worker."""

    @pytest.mark.parametrize(
        ("body", "status", "kind"),
        [
            (b"", 400, "malformed"),
            (b"{", 400, "malformed"),
            (b"[]", 400, "malformed"),
            (b'{"inputs": {"question": "\\ud800"}}', 400, "malformed"),
            (b'{"inputs": {"question": "\xff"}}', 400, "malformed"),
            (b"[" * 100_000, 400, "malformed"),
            (b'{"inputs":{"question":' + b"[" * 500 + b"]" * 500 + b"}}", 400, "malformed"),
            (b"{}", 422, "invalid-inputs"),
            (b'{"inputs": []}', 422, "invalid-inputs"),
            (b'{"inputs": {}}', 422, "invalid-inputs"),
            (b'{"inputs": {"question": 1}}', 422, "invalid-inputs"),
            (b'{"inputs": {"question": "x", "other": 1}}', 422, "invalid-inputs"),
            (b'{"inputs": {"question": "x"}, "variant": "none"}', 422, "unknown-variant"),
            (b'{"inputs": {"question": "x"}, "unti": "u"}', 422, "invalid-option"),
            (b'{"inputs": {"question": "x"}, "unit": 1}', 422, "invalid-option"),
            (b'{"inputs": {"question": "x"}, "refresh": 1}', 422, "invalid-option"),
            (b'{"inputs": {"question": "x"}, "priority": 10}', 422, "invalid-option"),
            (b'{"inputs": {"question": "x"}, "priority": true}', 422, "invalid-option"),
            (b'{"inputs": {"question": 1e400}}', 400, "malformed"),
        ],
    )
    def test_a_body_that_cannot_be_served_is_refused(self, shared_door, body, status, kind):
        reply = shared_door.api.post(ASK, content=body, headers={"Content-Type": "application/json"})
        assert (reply.status_code, slug(reply)) == (status, kind)
        assert reply.headers["x-should-retry"] == "false"

    def test_faults_of_inputs_are_named_by_pointers(self, shared_door):
        reply = shared_door.api.post(ASK, json={"inputs": {"questoin": "x"}})
        assert reply.json()["errors"] == [
            {"pointer": "/inputs/question", "detail": "question is missing"},
            {"pointer": "/inputs/questoin", "detail": "questoin is unknown (did you mean question?)"},
        ]

    def test_of_members_named_twice_the_last_counts(self, shared_door):
        body = b'{"inputs": {"question": "x"}, "priority": 99, "priority": 3}'
        headers = {"Content-Type": "application/json", "Prefer": "respond-async"}
        assert shared_door.api.post(ASK, content=body, headers=headers).status_code == 202

    @pytest.mark.parametrize(
        "media_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
    )
    def test_a_body_that_pages_may_send_anywhere_is_refused(self, shared_door, media_type):
        reply = shared_door.api.post(
            ASK, content=b'{"inputs": {"question": "x"}}', headers={"Content-Type": media_type}
        )
        assert (reply.status_code, slug(reply)) == (415, "unsupported-media-type")

    def test_a_compressed_body_is_refused_unread(self, shared_door):
        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        assert shared_door.api.post(ASK, content=b"\x1f\x8b", headers=headers).status_code == 415

    def test_a_program_that_is_not_there_is_404(self, shared_door):
        assert slug(shared_door.ask("x", program="none")) == "unknown-program"
        assert shared_door.api.get("/v1/programs/none").status_code == 404
        assert slug(shared_door.api.get("/v2")) == "not-found"

    def test_a_method_that_a_path_does_not_have_is_405(self, shared_door):
        reply = shared_door.api.put("/v1/predictions/pred_x")
        assert (reply.status_code, slug(reply)) == (405, "method-not-allowed")
        assert set(reply.headers["allow"].split(", ")) == {"GET", "HEAD", "DELETE"}

    @pytest.mark.parametrize("wait", ["", "-1", "1.5", "x", "٣"])
    def test_a_wait_that_is_no_number_of_seconds_is_refused(self, shared_door, wait):
        place = shared_door.ask("waited for", prefer="respond-async").json()["urls"]["self"]
        assert shared_door.api.get(place, params={"wait": wait}).status_code == 422

    def test_a_prediction_states_the_guard_that_holds_it_up(self, shared_door, dspyq):
        dspyq("breaker", "open", "control")
        found = shared_door.ask("while the breaker is open", prefer="respond-async").json()
        eventually(lambda: shared_door.look(found["id"]).get("waits_for") == "breaker")

    def test_a_request_id_is_the_caller_s_where_it_can_be_written(self, shared_door):
        def answered(stated):
            return shared_door.api.get("/healthz", headers={"X-Request-Id": stated}).headers["x-request-id"]

        assert answered("order-17.a_B") == "order-17.a_B"
        for unusable in ("a b", "x" * 129, "<script>", "é"):
            assert answered(unusable.encode()) != unusable
            assert answered(unusable.encode()).isalnum()

    def test_programs_are_listed_with_their_schemas(self, shared_door):
        (program,) = shared_door.api.get("/v1/programs").json()["data"]
        assert program["name"] == "qa"
        assert program["inputs"]["required"] == ["question"]
        assert program["outputs"]["properties"]["answer"]["type"] == "string"
        assert shared_door.api.get("/v1/programs/qa").json() == program

    def test_the_trace_of_a_request_reaches_its_job(self, shared_door, client):
        trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        shared_door.ask("traced", prefer="respond-async", headers={"traceparent": trace, "X-Request-Id": "r-9"})
        (name,) = client.keys("dspy:v1:job:*")
        headers = json.loads(client.hget(name, "message"))["headers"]
        assert headers["traceparent"] == trace
        assert '"r-9"' in json.dumps(headers)

    def test_no_answer_is_stored_on_the_way(self, shared_door):
        for reply in (shared_door.api.get("/v1/programs"), shared_door.api.get("/nowhere")):
            assert reply.headers["cache-control"] == "no-store"
            assert "Authorization" in reply.headers["vary"]
            assert "server" not in reply.headers


class TestKeylessLoopback:
    """A newcomer's curl is answered; what a proxy or a web page sends is not."""

    @pytest.mark.parametrize(
        "headers",
        [
            {"Host": "evil.example"},
            {"Host": "127.0.0.1.evil.example"},
            {"Host": "localhost.evil.example:8080"},
            {"Forwarded": "for=1.2.3.4"},
            {"X-Forwarded-For": "127.0.0.1"},
            {"X-Forwarded-Anything": "x"},
            {"Via": "1.1 proxy"},
            {"X-Real-IP": "1.2.3.4"},
        ],
    )
    def test_what_may_come_from_elsewhere_needs_a_key(self, shared_door, headers):
        reply = shared_door.api.post(ASK, json={"inputs": {"question": "x"}}, headers=headers)
        assert (reply.status_code, slug(reply)) == (401, "unauthenticated")
        assert reply.headers["www-authenticate"] == "Bearer"
        place = f"/v1/predictions/pred_{'A' * 64}"
        assert shared_door.api.get(place, headers=headers).status_code == 401

    @pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:80", "[::1]:8080", "[::1]"])
    def test_a_name_of_this_machine_is_served(self, shared_door, host):
        assert shared_door.api.get("/v1/programs", headers={"Host": host}).status_code == 200

    def test_an_address_that_others_reach_is_refused_without_keys(self, dspyq):
        done = dspyq("serve", "--host", "192.0.2.1", "--port", "0", ok=False)
        assert "serve.authentication" in done.stderr

    def test_everyone_is_served_where_that_is_stated(self, door, settings_file):
        server = door(settings_file({"serve": {"authentication": "none"}}))
        assert server.api.get("/v1/programs", headers={"Host": "any", "Via": "1.1 proxy"}).status_code == 200


class TestWebPages:
    def test_a_stated_origin_may_ask_and_no_other(self, door, settings_file):
        server = door(settings_file({"serve": {"cors_origins": ["https://app.example"]}}))
        preflight = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
        asked = server.api.options(ASK, headers={"Origin": "https://app.example", **preflight})
        assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (200, "https://app.example")
        refused = server.api.options(ASK, headers={"Origin": "https://evil.example", **preflight})
        assert "access-control-allow-origin" not in refused.headers
        problem = server.api.post(ASK, json={}, headers={"Origin": "https://app.example"})
        assert problem.headers["access-control-allow-origin"] == "https://app.example"
        other = server.api.post(ASK, json={}, headers={"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers

    def test_no_origin_may_ask_unless_it_is_stated(self, shared_door):
        reply = shared_door.api.get("/v1/programs", headers={"Origin": "https://app.example"})
        assert not [name for name in reply.headers if name.startswith("access-control")]


class TestItself:
    def test_metrics_count_requests_by_route(self, door):
        server = door()
        for path in ("/v1/programs", "/v1/programs", "/v1/programs/none", "/wp-login.php"):
            server.api.get(path)
        server.api.request("PROPFIND", "/v1/programs")
        requests = "dspyq_http_requests_total"
        assert server.metric(requests, route="/v1/programs", method="GET", status="200") == 2
        assert server.metric(requests, route="/v1/programs/{program}", status="404") == 1
        assert server.metric(requests, route="", status="404") == 1
        assert server.metric(requests, method="other", status="405") == 1
        assert server.metric("dspyq_http_request_seconds_count", route="/v1/programs") == 3

    def test_the_log_of_requests_holds_no_content(self, door):
        server = door(env={"DSPYQ_LOGGING__FORMAT": "json"})
        canary = "canary-4711"
        headers = {"Authorization": f"Bearer {canary}", "Cookie": canary, "User-Agent": canary, "X-Request-Id": "r-1"}
        server.api.post(f"{ASK}?q={canary}", json={"inputs": {"question": canary}, "x": canary}, headers=headers)
        server.api.get(f"/v1/predictions/{canary}?token={canary}", headers=headers)
        eventually(lambda: len([entry for entry in server.entries() if entry["event"] == "request"]) == 2)
        assert canary not in server.logs()
        entry = next(entry for entry in server.entries() if entry["event"] == "request")
        assert (entry["route"], entry["status"], entry["request_id"]) == (
            "/v1/programs/{program}/predictions", 422, "r-1",
        )  # fmt: skip
        assert canary not in httpx.get(f"{server.metrics_url}/metrics").text

    def test_probes_and_health(self, shared_door):
        assert shared_door.api.get("/healthz").text == "ok\n"
        assert httpx.get(f"{shared_door.metrics_url}/livez").status_code == 200
        assert httpx.get(f"{shared_door.metrics_url}/readyz").status_code == 200

    def test_a_check_starts_nothing(self, dspyq):
        done = dspyq("serve", "--check", "--port", str(free_port()))
        assert "can start" in done.stdout

    def test_a_port_in_use_is_one_line(self, dspyq, shared_door):
        done = dspyq("serve", "--port", str(shared_door.port), ok=False)
        assert "serve.port" in done.stderr

    def test_a_path_before_it_is_in_its_urls(self, door):
        server = door(arguments=("--root-path", "/ai"))
        found = server.ask("behind a proxy", prefer="respond-async")
        assert found.headers["location"].startswith("/ai/v1/predictions/pred_")
        assert server.api.get("/openapi.json").json()["servers"] == [{"url": "/ai"}]


class TestAdmission:
    def test_more_than_may_wait_are_refused_and_come_again_later(self, door, settings_file):
        """No worker runs, so that all wait."""
        server = door(settings_file({"serve": {"most_waiting": 2}}))
        with ThreadPoolExecutor(2) as waiting:
            held = [waiting.submit(server.ask, f"waiting {number}", prefer="wait=3") for number in range(2)]
            eventually(lambda: server.metric("dspyq_http_waiting") == 2)
            reply = server.ask("one too many")
            assert (reply.status_code, slug(reply)) == (503, "overloaded")
            assert 1 <= int(reply.headers["retry-after"]) <= 10
            assert [each.result().status_code for each in held] == [202, 202]
        assert server.metric("dspyq_http_refused_total", why="most_waiting") == 1

    def test_a_queue_that_is_too_deep_takes_no_further_question(self, door, settings_file):
        server = door(settings_file({"serve": {"max_queued": 2}}))
        for number in range(2):
            assert server.ask(f"queued {number}", prefer="respond-async").status_code == 202
        eventually(lambda: server.ask("one too deep", prefer="respond-async").status_code == 503)
        assert server.metric("dspyq_http_refused_total", why="max_queued") >= 1

    def test_a_body_may_be_as_large_as_the_settings_allow(self, door, settings_file):
        server = door(settings_file({"serve": {"max_body_bytes": 1000}, "programs": {"qa": {"max_input_bytes": 500}}}))
        for question, kind in (("x" * 600, "inputs-too-large"), ("x" * 2000, "inputs-too-large")):
            reply = server.ask(question)
            assert (reply.status_code, slug(reply)) == (413, kind)

        def parts():
            for _ in range(1000):
                yield b" " * 100

        reply = server.api.post(ASK, content=parts(), headers={"Content-Type": "application/json"})
        assert reply.status_code == 413

    def test_a_program_can_have_a_larger_body(self, door, settings_file):
        changes = {"serve": {"max_body_bytes": 1000}, "programs": {"qa": {"max_body_bytes": 100_000}}}
        server = door(settings_file(changes))
        assert server.ask("x" * 50_000, prefer="respond-async").status_code == 202


class TestEnd:
    def test_a_second_signal_ends_at_once(self, door):
        server = door(env={"DSPYQ_SERVE__DRAIN_SECONDS": "600"})
        server.send(signal.SIGTERM)
        server.wait_for_line("server_ending")
        server.send(signal.SIGTERM)
        assert server.wait() == 0

    def test_a_server_whose_redis_is_away_answers_and_is_well_again(self, door, fresh_redis_server, settings_file):
        redis = fresh_redis_server()
        server = door(settings_file({"redis_timeout_seconds": 1.0}), redis_url=redis.url)
        redis.process.kill()
        reply = server.ask("while it is away")
        assert (reply.status_code, slug(reply)) == (503, "storage-unavailable")
        assert int(reply.headers["retry-after"]) >= 1
        assert str(redis.port) not in reply.text
        redis.process.start()
        redis.process.ready()
        eventually(lambda: server.ask("once it is back", prefer="respond-async").status_code == 202)


class TestSeveralProcesses:
    def test_they_share_a_port_and_have_one_page_of_metrics(self, door):
        server = door(arguments=("--workers", "2"), waits=False)
        server.wait_for_line("workers_ready", 60)
        asked = 0
        threads = [threading.Thread(target=httpx.get, args=(f"{server.url}/v1/programs",)) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
            asked += 1
        eventually(lambda: server.metric("dspyq_http_requests_total", route="/v1/programs") == asked)
        assert server.metric("dspy_server_up") == 2
        page = httpx.get(f"{server.metrics_url}/metrics").text
        assert page.count("# TYPE dspyq_http_requests_total counter") == 1
        assert httpx.get(f"{server.metrics_url}/readyz").status_code == 200
        found = server.ask("of either process", prefer="respond-async").json()
        for _ in range(6):  # a process that did not make the id reads it
            with httpx.Client(base_url=server.url) as other:
                assert other.get(found["urls"]["self"]).status_code == 200
        server.send(signal.SIGTERM)
        assert server.wait(30) == 0


def test_the_description_is_valid_json_with_a_path_for_each_program(shared_door):
    description = shared_door.api.get("/openapi.json").json()
    assert description["openapi"] == "3.1.1"
    schema = description["paths"]["/v1/programs/qa/predictions"]["post"]["requestBody"]["content"]["application/json"]
    assert schema["schema"]["properties"]["inputs"] == {"$ref": "#/components/schemas/qa.inputs"}
    assert description["components"]["schemas"]["qa.inputs"]["required"] == ["question"]
    assert json.dumps(description).count("$defs") == 0
