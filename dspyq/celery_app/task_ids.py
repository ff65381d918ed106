"""Task ids of a process: all begin alike, and the answers of these tasks are published on one channel too.

So a process that waits for its own tasks subscribes once, not for each. The ids have the form of a random UUID, of
which the first 48 bits are the process's.
"""

from __future__ import annotations

from dspyq.core.ids import as_uuid, new_id
from dspyq.core.runtime import per_runtime
from dspyq.store.keys import REPLY_START_LENGTH
from dspyq.store.spines import id_beside


class TaskIds:
    """Maker of task ids.

    Attributes:
        start: The start of each, which other processes share only by chance.
    """

    def __init__(self) -> None:
        self.start = as_uuid(new_id())[:REPLY_START_LENGTH]

    def make(self) -> str:
        """Return a new id."""
        return self.start + as_uuid(new_id())[REPLY_START_LENGTH:]

    def make_for(self, input_hash: str) -> str:
        """Return a new id of a task that answers a question, which leads to the question's spine."""
        return id_beside(input_hash, self.make())


@per_runtime
def process_task_ids() -> TaskIds:
    """Return the maker of this process's ids; a forked child gets one of its own."""
    return TaskIds()
