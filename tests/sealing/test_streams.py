"""Streams are sealed with the key of the tenant whose question they answer, and unreadable without it."""

from __future__ import annotations

import time

import pytest

from dspyq.celery_app.heard_streams import HeardLog
from dspyq.core.tolerated import tolerated
from dspyq.sealing.keyring import key_id_of, new_key_line
from dspyq.sealing.refusals import UnreadableContent, refusals
from dspyq.store.keys import stream_key
from dspyq.store.sealed import process_tenant_keys
from dspyq.store.tenant_keys import SEALS_SECONDS
from dspyq.streaming.flusher import Flusher
from dspyq.streaming.frames import Frame, read_entries, write_entry
from tests.sealing.canary import CANARY, legible_commands, legible_keys
from tests.sealing.test_rotation import NO_MEMORY, write
from tests.support.processes import eventually

TEXT = Frame("delta", "answer", CANARY)


def key_of(entry):
    return key_id_of(entry.partition(b"\n")[2]).decode()


def texts(log):
    return "".join(frame.text for frame, _ in read_entries("task", log, 0) if frame.kind == "delta")


def test_a_tenants_stream_is_read_while_its_key_is_there_and_forgotten_with_it(
    configure, sealed, worker, client, redis_server
):
    path = sealed(True, NO_MEMORY)
    configure(path)
    worker(path)
    from dspyq import predict

    question = f"{CANARY} one"
    with redis_server.monitored() as commands:
        jobs = {
            tenant: predict.apply_async(kwargs={"question": question}, tenant=tenant, stream=True)
            for tenant in ("acme", None)
        }
        for job in jobs.values():
            chunks = list(job.stream(timeout=40))
            assert "".join(chunk.text for chunk in chunks if chunk.kind == "delta") == f"echo:{question}"
    assert (legible_commands(commands), legible_keys(client)) == (set(), set())
    acme, nobody = (stream_key(job.id) for job in jobs.values())
    kept = client.get(acme)
    own_id = process_tenant_keys().sealing("acme")[0].decode()
    assert (key_of(kept), key_of(client.get(nobody))[0]) == (own_id, "k")

    from dspyq.retention.forgetting import forget_tenant

    told = forget_tenant("acme")
    assert (told.streams, client.exists(acme), client.exists(nobody)) == (0, 0, 1)  # with its answer
    assert not [each for each in told.not_reached if "stream" in each]
    counted = refusals.counts()["forgotten"]
    with pytest.raises(UnreadableContent, match="forgotten"):
        list(read_entries(jobs["acme"].id, kept, 0))
    assert refusals.counts()["forgotten"] == counted + 1


def test_a_stream_whose_answer_is_gone_is_forgotten_by_its_key(configure, sealed, client):
    configure(sealed(True, NO_MEMORY))
    for task, tenant in (("one", "acme"), ("two", "other"), ("three", "")):
        client.set(stream_key(task), write_entry(task, TEXT, tenant))
    from dspyq.retention.forgetting import forget_tenant

    assert forget_tenant("acme").streams == 1
    assert [client.exists(stream_key(task)) for task in ("one", "two", "three")] == [0, 1, 1]


@pytest.mark.parametrize("fault", ["flipped", "unknown", "forgotten", "moved", "plain"])
def test_what_does_not_open_is_counted_and_its_text_comes_with_the_answer(configure, sealed, fault):
    configure(sealed(True, NO_MEMORY))
    entry = write_entry("task", TEXT, "acme")
    cause = {"flipped": "altered", "unknown": "unknown_key", "moved": "altered", "plain": "plain_text"}.get(
        fault, fault
    )
    log, counted = HeardLog("other" if fault == "moved" else "task"), refusals.counts()[cause]
    if fault == "flipped":
        entry = entry[:-1] + bytes([entry[-1] ^ 1])
    elif fault == "unknown":
        entry = write_entry("task", TEXT).replace(b"dq1k", b"dq1z")
    elif fault == "forgotten":
        process_tenant_keys().destroy("acme")
    elif fault == "plain":
        entry = b'28\n["delta", "answer", "forged"]'
    assert log.add(0, entry)
    assert (log.frames, refusals.counts()[cause]) == ([], counted + 1)
    assert log.add(len(log.content), write_entry(log.name.rpartition(":")[2], TEXT, "other"))
    assert [frame for frame, _ in log.frames] == [TEXT]


def test_a_stream_follows_a_rotation_of_the_key_above_its_tenants(configure, sealed, keys_file):
    configure(sealed(True, NO_MEMORY))
    log = write_entry("task", TEXT, "acme")
    old, index = keys_file.read_text().splitlines()
    write(keys_file, new_key_line(), old, index)
    time.sleep(SEALS_SECONDS + 0.2)
    process_tenant_keys().seal_again()
    log += write_entry("task", TEXT, "acme")
    write(keys_file, keys_file.read_text().splitlines()[0], index)
    time.sleep(SEALS_SECONDS + 0.2)
    assert texts(log + write_entry("task", TEXT, "acme")) == 3 * CANARY


def test_a_tenant_whose_key_cannot_be_opened_streams_nothing_and_stops_no_other(configure, sealed, client):
    configure(sealed(True, NO_MEMORY))
    for task in ("task", "closed"):
        client.hset(f"dspy:v1:job:{task}", "fence", "1")
    client.hset(
        "dspy:v1:tenant-keys", mapping={"of:closed": b"tclosed0 dq1zzzzzzzz" + bytes(60), "id:tclosed0": "closed"}
    )
    flusher, failed = Flusher(client, client, is_one_redis=True), tolerated("stream")
    try:
        runs = [flusher.begin("closed", "1", "closed"), flusher.begin("task", "1", "acme")]
        for run in runs:
            run.add("delta", "answer", CANARY)
        eventually(lambda: texts(client.get(stream_key("task")) or b"") == CANARY)
        for run in runs:
            flusher.end(run)
    finally:
        flusher.close()
    assert not client.exists(stream_key("closed"))
    assert tolerated("stream") > failed
