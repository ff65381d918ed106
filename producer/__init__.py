"""What a producer needs: ``from producer import predict``."""

import logging
import os

from config.celery import app
from producer.predict import predict
from producer.prediction import Metadata, Prediction, Usage

# A library says nothing on its own account; its host configures logging.
logging.getLogger("dspyq").addHandler(logging.NullHandler())

__all__ = ["Metadata", "Prediction", "Usage", "app", "predict"]


def _forget_connections() -> None:
    """Give a forked child connections of its own: web servers fork after they have loaded the application."""
    app._after_fork()  # noqa: SLF001 - Celery runs it only for forks by multiprocessing
    if (backend := app._backend_cache) is not None:  # noqa: SLF001 - looking must not create one
        backend.result_consumer._after_fork()  # noqa: SLF001 - as above


os.register_at_fork(after_in_child=_forget_connections)
