"""A tenant has a key of its own: without it, nothing of the tenant can be read, wherever copies are."""

from __future__ import annotations

import time

import pytest

from dspyq.errors import PoisonedJob
from dspyq.sealing.keyring import key_id_of, new_key_line
from dspyq.store.keys import job_key, result_key
from dspyq.store.seal_keys import process_keys
from dspyq.store.sealed import process_tenant_keys
from dspyq.store.tenant_keys import SEALS_SECONDS, TenantKeys
from tests.sealing.test_rotation import NO_MEMORY, write
from tests.support.processes import wait_until


def ask(question, tenant):
    from dspyq import predict

    return predict.apply_async(kwargs={"question": question}, tenant=tenant)


def test_content_of_a_tenant_is_sealed_with_its_key_and_gone_with_it(configure, sealed, worker, client):
    path = sealed(True, NO_MEMORY)
    configure(path)
    worker(path)
    jobs = {tenant: ask("one", tenant) for tenant in ("acme", "other")}
    assert [job.get(timeout=40).answer for job in jobs.values()] == ["echo:one"] * 2
    ids = {tenant: key_id_of(client.get(result_key(job.id))).decode() for tenant, job in jobs.items()}
    assert ids["acme"] != ids["other"]
    assert all(each.startswith("t") for each in ids.values())
    assert process_tenant_keys().destroy("acme") == ids["acme"]
    time.sleep(SEALS_SECONDS + 0.2)  # until then the worker may seal with it
    again = {tenant: ask("one", tenant) for tenant in jobs}
    assert [job.get(timeout=40).answer for job in again.values()] == ["echo:one"] * 2
    assert (again["acme"].id == jobs["acme"].id, again["other"].id == jobs["other"].id) == (False, True)
    assert key_id_of(client.get(result_key(again["acme"].id))).decode() not in ids.values()


@pytest.mark.journey
def test_a_job_of_a_forgotten_tenant_is_set_aside(configure, sealed, worker, client):
    path = sealed(True, NO_MEMORY)
    configure(path)
    job = ask("one", "acme")
    assert b"acme" not in client.hget(job_key(job.id), "message").split(b'"body"')[1].split(b'"')[1]
    process_tenant_keys().destroy("acme")
    worker(path)
    with pytest.raises(PoisonedJob):
        job.get(timeout=40)


def test_keys_of_tenants_follow_a_rotation(configure, sealed, keys_file, client):
    configure(sealed(True, NO_MEMORY))
    keys = process_tenant_keys()
    acme = keys.sealing("acme")
    old, index = keys_file.read_text().splitlines()
    new = new_key_line()
    write(keys_file, new, old, index)
    wait_until(lambda: process_keys().ring.sealing_id == new.split()[1], 30, "the new key to seal")
    assert [keys.seal_again(), keys.seal_again()] == [1, 0]
    key_id, _, envelope = client.hget("dspy:v1:tenant-keys", "of:acme").partition(b" ")
    assert (key_id, key_id_of(envelope).decode()) == (acme[0], new.split()[1])
    write(keys_file, new, index)
    wait_until(lambda: len(process_keys().ring.ids) == 1, 30, "the old key to be gone")
    assert TenantKeys(process_keys()).sealing("acme") == acme
