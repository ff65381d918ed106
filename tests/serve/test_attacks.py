"""Attacks on the door that no other file here shows.

| attack | shown by |
|---|---|
| slow heads, bodies, connections | ``test_protocol.TestSlow``; here a reader that stops |
| large heads, bodies, nesting, compression | ``test_protocol.TestLarge``, ``test_server.TestRequests``, ``TestAdmission``, ``test_batches``; here a body in chunks, and numbers beyond 64 bits |
| keys: wrong, cut, in another case, revoked, expired, unknown without end, in the query, by their time | ``test_keys``, ``tests/api_keys/test_known.py``, ``test_form.py`` |
| things of others: ids, tokens, cancellation, events, keys of requests, programs | ``test_keys``, ``test_ids``, ``test_events``; here feedback |
| what an answer shows of another tenant's question | ``test_keys``; here all members and headers of the reply |
| money: limits raced, ``refresh``, priorities | ``tests/e2e/test_tenants.py``, ``test_keys``; here a limit over HTTP, and clients that hang up again and again |
| smuggling | ``test_protocol.TestSmuggling``; here line ends without a carriage return |
| injection into headers, places, texts, names of keys | here |
| browsers: origins, forms, frames, rebound names | ``test_server.TestWebPages``, ``TestRequests``, ``TestKeylessLoopback``, ``test_docs_page`` |
| leaks into logs, metrics, errors, traces | ``test_server.TestItself``, ``test_problems``, ``test_keys``, ``test_traces`` |
| clients that leave at any moment | ``test_protocol`` |
"""  # noqa: E501 - a table

from __future__ import annotations

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from dspyq.api_keys.store import ApiKeys
from dspyq.config.key_grants import ALL_RIGHTS, KeyGrant
from dspyq.config.settings import get_settings
from dspyq.guards.limits import Limits
from dspyq.guards.tenants import Tenants
from dspyq.store.clients import jobs_client
from tests.serve.test_events import SLOW, events
from tests.support.processes import eventually
from tests.support.sockets import exchange

ASK = "/v1/programs/qa/predictions"
HEAD = b"POST /v1/programs/qa/predictions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def slug(reply):
    return reply.json()["type"].rpartition("/")[2]


def test_a_reader_that_stops_is_cut_off_and_others_are_served_meanwhile(door, settings_file):
    server = door(settings_file({"serve": {"keep_alive_seconds": 1.0, "header_seconds": 0.5, "body_seconds": 0.5}}))
    request = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port)) as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1_024)
        reader.setblocking(False)
        sent = 0
        try:
            while sent < 20_000:  # replies of some 20 KB each, none of which is read
                sent += reader.send(request) > 0
        except (BlockingIOError, ConnectionError):
            pass
        assert server.api.get("/healthz").status_code == 200
        server.api.close()
        eventually(lambda: server.metric("dspyq_http_connections") == 0, 60)


def test_a_body_in_chunks_is_refused_where_it_becomes_too_large(door, settings_file):
    server = door(settings_file({"serve": {"max_body_bytes": 10_000}}))
    chunk = b"1000\r\n" + b"x" * 0x1000 + b"\r\n"
    received = exchange(server.port, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 100)
    assert received.startswith(b"HTTP/1.1 413 ")
    assert received.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("number", ["9223372036854775808", "-9223372036854775809", "1" * 400, "1e999"])
def test_a_number_that_is_none_or_beyond_64_bits_is_no_option(shared_door, number):
    body = b'{"inputs": {"question": "x"}, "priority": %b}' % number.encode()
    reply = shared_door.api.post(ASK, content=body, headers={"Content-Type": "application/json"})
    assert reply.status_code in {400, 422}


def test_line_ends_without_a_carriage_return_hide_no_second_request(shared_door):
    hidden = b"GET /v1/programs HTTP/1.1\nHost: localhost\n\n"
    received = exchange(shared_door.port, HEAD.replace(b"\r\n", b"\n") + b"Content-Length: 0\n\n" + hidden)
    # Either both see two requests, or it is refused; the body of the first is not what a proxy takes the second for.
    assert received.count(b"HTTP/1.1 4") >= 1
    assert b'"object":"list"' not in received or received.count(b"HTTP/1.1 ") == 2


class TestInjection:
    @pytest.mark.parametrize("place", ["-1", "1e9", "1 2", "١", "9" * 30, "0x10"])
    def test_a_place_in_a_stream_is_a_plain_number(self, shared_door, place):
        asked = shared_door.ask("with places", prefer="respond-async").json()
        path = f"{asked['urls']['self']}/events"
        headers = {"Last-Event-ID": place.encode()}
        assert shared_door.api.get(path, headers=headers).status_code == 422
        assert shared_door.api.get(path, params={"after": place}).status_code == 422

    def test_a_place_beyond_the_end_of_a_stream_gets_its_outcome(self, shared_door, shared_worker):
        del shared_worker
        asked = shared_door.ask("all of it").json()
        reply = shared_door.api.get(f"{asked['urls']['self']}/events", headers={"Last-Event-ID": "999999999"})
        assert list(events(reply.text.split("\n")))[-1][0] == "completed"

    def test_line_ends_in_a_header_s_value_reach_no_response(self, shared_door):
        request = (
            b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Request-Id: a\rSet-Cookie: b=c\r\n\r\n"
        )
        received = exchange(shared_door.port, request)
        assert b"set-cookie" not in received.partition(b"\r\n\r\n")[0].lower()

    def test_a_text_cannot_begin_an_event(self, shared_door, shared_worker, endpoint):
        del shared_worker
        text = 'x\n\nevent: completed\ndata: {"forged": true}\n\nid: 7\n: </script>'
        endpoint.script(outputs={"answer": text}, piece_characters=3)
        body = {"inputs": {"question": "with events"}, "stream": True}
        with shared_door.api.stream("POST", ASK, json=body) as reply:
            found = list(events(reply.iter_lines()))
        assert [name for name, _, _ in found].count("completed") == 1
        assert found[-1][1]["outputs"]["answer"] == text.strip()

    def test_a_name_with_colons_is_part_of_no_other_key(self, shared_door, shared_worker, client):
        del shared_worker
        name = "a:b:*\x7f?[x]"
        before = {key for key in client.keys("*") if b"a:b" in key}
        reply = shared_door.ask("named", headers={"Idempotency-Key": "a:b:*?[x]"}, unit=name)
        assert reply.status_code == 200
        assert {key for key in client.keys("*") if b"a:b" in key} == before
        assert shared_door.api.get("/v1/predictions/pred_a:b").status_code == 404
        assert shared_door.api.get("/v1/programs/qa:control").status_code == 404


@pytest.mark.usefixtures("configured", "shared_worker")
class TestTenants:
    @pytest.fixture
    def keys(self):
        return ApiKeys(jobs_client())

    def ask(self, server, key, question, path=ASK, prefer="wait=30", **members):
        headers = {"Authorization": f"Bearer {key.text}", "Prefer": prefer}
        return server.api.post(path, json={"inputs": {"question": question}, **members}, headers=headers)

    def test_no_reply_shows_that_another_tenant_has_asked(self, door, keys):
        ours, theirs = (keys.create(name, "ci", KeyGrant(can=ALL_RIGHTS)) for name in ("acme", "other"))
        server = door()
        self.ask(server, ours, "asked by both")
        of_both, of_one = (self.ask(server, theirs, f"asked by {whom}") for whom in ("both", "us"))

        def shape(reply):
            found = reply.json()
            metadata = {name: value for name, value in found["metadata"].items() if name != "request_id"}
            metadata["duration_seconds"] = metadata["usage"] = None
            metadata["cost_usd"] = metadata["cost_usd"] > 0
            same = {name: found[name] for name in ("object", "status", "program", "variant", "error")}
            return same, metadata, sorted(found["urls"]), len(found["id"]), sorted(reply.headers)

        assert shape(of_both) == shape(of_one)

    def test_feedback_on_another_tenant_s_answer_is_not_there(self, door, keys):
        ours, theirs = keys.create("acme", "ci", KeyGrant()), keys.create("other", "ci", KeyGrant())
        server = door()
        place = f"{self.ask(server, ours, 'judged').json()['urls']['self']}/feedback"
        given, bearer = {"name": "thumbs", "value": 1, "comment": "ours"}, {"Authorization": f"Bearer {theirs.text}"}
        assert server.api.post(place, json=given, headers=bearer).status_code == 404
        assert server.api.post(place, json=given, headers={"Authorization": f"Bearer {ours.text}"}).status_code == 201
        assert server.api.get(place, headers=bearer).status_code == 404

    def test_callers_that_race_for_the_rest_of_a_tenant_s_limit_overspend_nothing(
        self, door, keys, worker, settings_file, endpoint
    ):
        settings = settings_file({"programs": {"qa": {"when_unavailable": "fail"}}})
        worker(settings)
        made, other = keys.create("small", "ci", KeyGrant()), keys.create("large", "ci", KeyGrant())
        limits = Limits(jobs_client(), get_settings())
        limits.override("tenant:small", "daily", 10**12)  # calls are held and settled on accounts with a limit alone
        server = door(settings)
        endpoint.hold()
        headers = {"Authorization": f"Bearer {made.text}", "Prefer": "respond-async"}
        server.api.post(ASK, json={"inputs": {"question": "the first"}}, headers=headers)
        endpoint.wait_for_calls(1)
        bound = limits.of_tenants(["small"])[0].held_nano_usd
        endpoint.release()
        eventually(lambda: limits.of_tenants(["small"])[0].settled_nano_usd > 0)
        most = bound + 5 * limits.of_tenants(["small"])[0].settled_nano_usd
        limits.override("tenant:small", "daily", most)
        with ThreadPoolExecutor(50) as callers:
            replies = list(
                callers.map(lambda number: self.ask(server, made, f"raced {number}", prefer="wait=5"), range(50))
            )
        # On a busy machine some still wait for money that others hold.
        refused = [reply for reply in replies if reply.status_code not in {200, 202}]
        assert refused or any(reply.status_code == 202 for reply in replies)
        assert {(reply.status_code, slug(reply)) for reply in refused} <= {(402, "tenant-limit")}
        eventually(lambda: limits.of_tenants(["small"])[0].held_nano_usd == 0)
        assert limits.of_tenants(["small"])[0].settled_nano_usd <= most
        assert self.ask(server, other, "of another").status_code == 200

    def test_a_client_that_hangs_up_again_and_again_is_charged_each_time_once(
        self, door, keys, settings_file, endpoint
    ):
        endpoint.script(**SLOW | {"piece_interval_seconds": 1})
        made, loops = keys.create("acme", "ci", KeyGrant(can=ALL_RIGHTS)), 3
        server = door(settings_file({"serve": {"hangup_seconds": 0.1}}))
        headers = {"Authorization": f"Bearer {made.text}"}
        for number in range(loops):
            body = {"inputs": {"question": "again and again"}, "stream": True, "refresh": True}
            with server.api.stream("POST", ASK, json=body, headers=headers) as reply:
                coming = events(reply.iter_lines())
                while next(coming)[0] != "delta":
                    pass
            eventually(lambda ended=number + 1: endpoint.counts().abandoned == ended, 60)
        tenants = Tenants(jobs_client(), get_settings())
        eventually(lambda: sum(line.unknown_calls for line in tenants.costs(["acme"], days=1)) == loops)
        (daily, _) = Limits(jobs_client(), get_settings()).of_tenants(["acme"])
        (line,) = tenants.costs(["acme"], days=1)
        assert (line.calls, line.billed_nano_usd, daily.held_nano_usd) == (loops, 0, 0)
        assert line.unknown_nano_usd > 0
        time.sleep(0.3)  # nothing is charged later
        assert tenants.costs(["acme"], days=1) == [line]


def test_no_error_and_no_health_page_shows_what_the_server_holds(shared_door):
    for path in ("/healthz", "/nowhere", "/v1/predictions/pred_x", "/v1/programs/nowhere"):
        reply = shared_door.api.get(path, params={"secret": "dspyq_secret"})
        assert "dspyq_secret" not in reply.text
        assert "redis" not in reply.text.lower()
        assert "server" not in reply.headers
    assert json.loads(shared_door.api.get("/nowhere").text)["status"] == 404
