"""Queues that had no job for a while: one thread listens to them, so that the consumer's cost is that of the others.

Each BRPOP costs Redis and the worker some time for each list that it names. The consumer sends one for every job, the
thread one in several seconds. It takes no job: a bell there goes on to the consumer, which listens to that queue itself
from then on.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterable
from typing import cast

import redis

from dspyq.config.settings import get_settings
from dspyq.core.runtime import bound, per_runtime
from dspyq.core.tolerated import survived
from dspyq.delivery.pauses import Pauses, process_pauses
from dspyq.store.clients import connect
from dspyq.store.key_bases import NAMESPACE, key_base
from dspyq.store.keys import key
from dspyq.store.scripts import load_script
from dspyq.store.spines import jobs_url

#: Where no more than these are consumed, none is quiet: one BRPOP over all of them is cheap.
MOST_WITHOUT_QUIET = 16
#: How long after its last bell a queue is quiet.
LOUD_SECONDS = 60.0
#: How long one look lasts. A queue that was resumed is the consumer's until the next one.
_LISTEN_SECONDS = 5.0
#: Before the next attempt where Redis fails, and before the next look at how many queues there are.
_PAUSE_SECONDS = 1.0


class QuietQueues:
    """The quiet queues of a process.

    Args:
        client: A client of its own; its replies may take ``_LISTEN_SECONDS`` longer than others'.
        pauses: The queues that nothing is taken from.

    Attributes:
        queues: Those that the thread listens to now, and the consumer need not.
        passed_on: The list of bells that went on to the consumer, as kombu names it: without the prefix of keys.
    """

    def __init__(self, client: redis.Redis, pauses: Pauses) -> None:
        self.queues: frozenset[str] = frozenset()
        name = f"passed-on:{uuid.uuid4().hex}"
        self.passed_on = NAMESPACE + name
        self._key = key(name)
        self._client = client
        self._pauses = pauses
        self._pass_on = load_script(client, "dspyq.delivery", "pass_on")
        self._rang_at: dict[str, float] = {}
        self._stopping = threading.Event()

    def start(self, consumed: Callable[[], Iterable[str]], has_room: Callable[[], bool]) -> None:
        """Start the thread.

        Args:
            consumed: Returns the queues that this process takes from now.
            has_room: Returns whether it would take a job now; otherwise another process gets the bell.
        """
        arguments = (consumed, has_room)
        threading.Thread(target=bound(self._run), args=arguments, name="dspyq-quiet-queues", daemon=True).start()

    def stop(self) -> None:
        """Have the thread end after its present look."""
        self._stopping.set()

    def note_bell(self, queue: str) -> None:
        """Note a bell of a queue."""
        self._rang_at[queue] = time.monotonic()

    def look(self, consumed: Iterable[str], has_room: Callable[[], bool]) -> bool:
        """Listen to the quiet queues until one rings or the time is over; return False where there are none.

        Raises:
            redis.RedisError: If Redis does not answer.
        """
        quiet = self._quiet(set(consumed))
        if quiet != self.queues:  # or the consumer would look at all of them anew
            self.queues = quiet
        if not quiet:
            return False
        prefix = key_base()
        names = [prefix + queue for queue in quiet]
        found = cast("list[bytes] | None", self._client.brpop(names, timeout=_LISTEN_SECONDS))
        if found:
            name, item = found
            queue = name.decode().removeprefix(prefix)
            self.note_bell(queue)
            self.queues = quiet - {queue}  # before its bell is there
            self._pass_on((self._key, prefix + queue), queue=queue, item=item, has_room="1" if has_room() else "")
        return True

    def _quiet(self, consumed: set[str]) -> frozenset[str]:
        if len(consumed) <= MOST_WITHOUT_QUIET:
            return frozenset()
        since = time.monotonic() - LOUD_SECONDS
        loud = {queue for queue, rang_at in list(self._rang_at.items()) if rang_at > since}
        return frozenset(consumed - loud - self._pauses.queues)

    def _run(self, consumed: Callable[[], Iterable[str]], has_room: Callable[[], bool]) -> None:
        while not self._stopping.is_set():
            is_listening = False
            with survived("quiet_queues_thread"):
                is_listening = self.look(consumed(), has_room)
            if not is_listening:
                self.queues = frozenset()  # the consumer listens to all of them
                self._stopping.wait(_PAUSE_SECONDS)
        self.queues = frozenset()


@per_runtime(is_of_part=True)
def process_quiet_queues() -> QuietQueues:
    """Return this process's quiet queues."""
    settings = get_settings()
    seconds = _LISTEN_SECONDS + settings.redis_timeout_seconds
    return QuietQueues(connect(jobs_url(), timeout_seconds=seconds, retries=0), process_pauses())
