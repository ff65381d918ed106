from celery import shared_task

from dspyq import predict


@shared_task
def summarize(ticket: str) -> str:
    """A task of the project's own application, which asks for a prediction; another application answers it."""
    return predict.delay(question=ticket).get(timeout=30, disable_sync_subtasks=False).answer
