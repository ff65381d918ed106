"""Random ids: none comes twice, from whichever thread or process."""

import os
import uuid
from concurrent.futures import ThreadPoolExecutor

from dspyq.core.ids import as_uuid, new_id


def test_a_task_id_is_a_random_uuid():
    ids = [as_uuid(new_id()) for _ in range(500)]
    assert len(set(ids)) == 500
    for one in ids:
        read = uuid.UUID(one)
        assert str(read) == one
        assert read.version == 4
        assert read.variant == uuid.RFC_4122


def test_an_id_has_32_hexadecimal_digits():
    assert all(len(bytes.fromhex(new_id())) == 16 for _ in range(100))


def test_threads_get_different_ids():
    with ThreadPoolExecutor(8) as pool:
        ids = [one for some in pool.map(lambda _: [new_id() for _ in range(1000)], range(8)) for one in some]
    assert len(set(ids)) == 8_000


def test_a_forked_child_gets_other_ids_than_its_parent():
    new_id()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, "".join(new_id() for _ in range(100)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(reader, 3_200).decode()
    os.close(reader)
    os.close(writer)
    assert not {theirs[start : start + 32] for start in range(0, 3_200, 32)} & {new_id() for _ in range(200)}
