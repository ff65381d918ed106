"""A worker process: the task's body, lifecycle, logs, monitoring, Flower and beat."""
