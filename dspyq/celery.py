"""The entry point of ``celery -A dspyq worker``, ``flower`` and ``beat``."""

from dspyq.celery_app.application import app
from dspyq.client.predict import predict  # registers the task
from dspyq.worker import lifecycle

__all__ = ["app", "predict"]

lifecycle.refuse_a_faulty_configuration()
lifecycle.connect()
