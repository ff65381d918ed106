"""Counters as Redis packs them, and sums of days."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspyq.experiments.placement import BUCKETS
from dspyq.experiments.sums import unpack_counters

signed = st.integers(-(2**63), 2**63 - 1)


@given(st.integers(1, 4).flatmap(lambda fields: st.tuples(st.just(fields), st.lists(signed, max_size=8 * fields))))
def test_counters_come_out_by_field_and_bucket(drawn):
    fields, values = drawn
    found = unpack_counters(struct.pack(f">{len(values)}q", *values), fields, buckets=8)
    assert [len(each) for each in found] == [8] * fields
    padded = values + [0] * (8 * fields - len(values))
    assert [found[index % fields][index // fields] for index in range(8 * fields)] == padded


def test_an_array_that_is_not_there_holds_zeros():
    assert unpack_counters(b"", 2) == ((0,) * BUCKETS,) * 2


@pytest.mark.parametrize("packed", [b"1234567", bytes(8 * 17)])
def test_other_bytes_are_refused(packed):
    with pytest.raises(ValueError, match="are not at most 8 × 2 counters"):
        unpack_counters(packed, 2, buckets=8)


def test_counters_of_a_real_redis_come_out_as_they_were_added(redis_server):
    client = redis_server.client(decode_responses=False)
    client.bitfield("sums").incrby("i64", f"#{2 * 1023}", 3).incrby("i64", f"#{2 * 1023 + 1}", -5).incrby(
        "i64", "#0", 2**62
    ).execute()
    denominators, numerators = unpack_counters(client.get("sums"), 2)
    assert (denominators[0], denominators[1023], numerators[1023]) == (2**62, 3, -5)
    assert sum(denominators) == 2**62 + 3
