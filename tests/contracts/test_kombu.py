"""Private parts of kombu that dspyq.delivery and dspyq.celery_app use."""

from __future__ import annotations

from typing import Any

import kombu
import pytest
from kombu import pools
from kombu.transport import redis, virtual
from kombu.utils import json as kombu_json
from kombu.utils.collections import eqhash

from tests.support.contracts import parameters


@pytest.mark.parametrize(
    ("owner", "name", "expected"),
    [
        (redis.Channel, "basic_publish", "self message exchange routing_key **kwargs"),
        (redis.Channel, "decode_body", "self body encoding"),
        (redis.Channel, "encode_body", "self body encoding"),
        (redis.Channel, "_brpop_read", "self **options"),
        (redis.Channel, "_brpop_start", "self timeout"),
        (redis.Channel, "_get", "self queue"),
        (redis.Channel, "_get_message_priority", "self message reverse"),
        (redis.Channel, "_get_pool", "self asynchronous"),
        (redis.Channel, "_has_queue", "self queue **kwargs"),
        (redis.Channel, "_on_connection_disconnect", "self connection"),
        (redis.Channel, "_purge", "self queue"),
        (redis.Channel, "_put", "self queue message **kwargs"),
        (redis.Channel, "_receive_one", "self c"),
        (redis.Channel, "_size", "self queue"),
        (redis.Channel, "_update_queue_cycle", "self"),
        (redis.Channel, "active_queues", "property"),
        (virtual.QoS, "can_consume_max_estimate", "self"),
        (redis.Transport, "_deliver", "self message queue"),
        (redis.Transport, "register_with_event_loop", "self connection loop"),
        (virtual.Message, "_decode", "self"),
        (virtual.QoS, "ack", "self delivery_tag"),
        (virtual.QoS, "append", "self message delivery_tag"),
        (virtual.QoS, "reject", "self delivery_tag requeue"),
        (kombu.Connection, "as_uri", "self include_password mask getfields"),
    ],
)
def test_what_is_overridden_or_called_has_its_parameters(owner: type, name: str, expected: str) -> None:
    assert parameters(owner, name) == expected


def test_a_message_that_was_acknowledged_counts_as_prefetched_no_more() -> None:
    qos = virtual.QoS(channel=None, prefetch_count=1)
    qos.restore_at_shutdown = False
    qos.append(object(), "tag")
    assert not qos.can_consume()
    assert "tag" in qos._delivered
    qos._quick_ack("tag")
    assert qos.can_consume()


def test_a_channel_lists_the_queues_it_consumes_from_and_notes_that_it_is_polled(redis_server: Any) -> None:
    with kombu.Connection(f"redis://127.0.0.1:{redis_server.port}") as connection:
        channel = connection.channel()
        assert (channel._active_queues, channel._registered) == ([], True)
        kombu.Consumer(channel, [kombu.Queue("contract")], callbacks=[print]).consume()
        assert channel._active_queues == ["contract"]


def test_a_channel_whose_acks_are_not_emulated_takes_a_qos_of_its_own() -> None:
    assert redis.Channel.ack_emulation
    assert redis.Channel.priority_steps
    assert redis.Channel.keyprefix_fanout == "/{db}."
    assert virtual.QoS.restore_at_shutdown


def test_a_decoder_by_a_mark_reads_what_json_has_no_type_for() -> None:
    kombu_json._decoders["contract"] = lambda value: ("read", value)
    try:
        assert kombu_json.loads('{"__type__": "contract", "__value__": 1}') == ("read", 1)
    finally:
        del kombu_json._decoders["contract"]


def test_pools_of_a_process_are_kept_by_address_and_options_and_have_one_limit() -> None:
    first, same, other = (kombu.Connection("memory://", transport_options={"runtime": number}) for number in (0, 0, 1))
    try:
        pool = pools.connections[first]
        assert pools.connections[same] is pool
        assert pools.connections[other] is not pool
        limit = pools.get_limit()
        with pool.acquire(), pytest.raises(RuntimeError, match="shrink"):
            pools.set_limit(limit - 1)
        pools.set_limit(limit)
        assert pools.connections.pop(eqhash(first)) is pool
        assert pools.connections[same] is not pool
    finally:
        for each in (first, other):
            pools.connections.pop(eqhash(each), None)
