"""What a worker needs: ``celery -A dspyq worker``."""

from dspyq.celery_app.application import app
from dspyq.worker import lifecycle

__all__ = ["app"]

lifecycle.refuse_a_faulty_configuration()
lifecycle.connect()
