"""Names of messages and queues, and the size of messages, the same in producers, workers and tools."""

#: The queue of tasks of your own that name none.
DEFAULT_QUEUE = "dspyq"
#: The queue of the tick that starts due batches.
BATCH_QUEUE = "dspyq.batches"
TASK_NAME = "dspyq.predict"
TICK_NAME = "dspyq.batches.tick"
#: The message header with a prediction's request.
HEADER = "dspyq"
#: The most bytes of a job's message where the configuration states no other.
DEFAULT_MAX_JOB_BYTES = 64 * 1024 * 1024
