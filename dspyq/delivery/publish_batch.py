"""kombu's batch of messages in one pipeline, with a check of the replies of the script that puts a job."""

# mypy: allow-untyped-calls
# kombu is typed in part only.

from __future__ import annotations

from typing import Any

from kombu.transport import redis

from dspyq.delivery.records import check_put


class PublishBatch(redis.PublishBatch):
    """A batch that raises for a job whose id is another question's; kombu drops all replies."""

    def flush(self) -> None:
        """Send pending messages.

        Raises:
            InvalidOption: If the id of a job is another question's; the others are sent.
            StateChanged: If the experiment of one has another state than the one that gave it its queue; the others are
                sent.
            kombu.exceptions.BatchPublishError: If Redis does not answer.
        """
        replies: list[Any] = []
        execute = self.pipeline.execute
        self.pipeline.execute = lambda: replies.extend(execute())
        try:
            super().flush()
        finally:
            del self.pipeline.execute
        check_put(replies)
