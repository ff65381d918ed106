"""A request's span, in its client's trace and above the message that it sends."""

from __future__ import annotations

import pytest

from tests.support.collector import Collector

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
SERVER, PRODUCER = 2, 4


@pytest.fixture
def collector():
    with Collector() as running:
        running.status = 200
        yield running


def test_a_request_has_a_span_in_its_client_s_trace_and_sends_its_message_within(collector, settings_file, door):
    server = door(settings_file({"tracing": {"endpoint": collector.url}}))
    headers = {"traceparent": f"00-{TRACE_ID}-b7ad6b7169203331-01"}
    assert server.ask("in a trace", prefer="respond-async", headers=headers).status_code == 202
    assert server.terminate() == 0  # which exports what waits
    spans = {span.kind: span for span in collector.spans()}
    assert {span.trace_id.hex() for span in spans.values()} == {TRACE_ID}
    assert spans[SERVER].name == "POST /v1/programs/{program}/predictions"
    assert spans[SERVER].parent_span_id.hex() == "b7ad6b7169203331"
    assert spans[PRODUCER].parent_span_id == spans[SERVER].span_id
    status = {pair.key: pair.value.int_value for pair in spans[SERVER].attributes}["http.response.status_code"]
    assert status == 202
