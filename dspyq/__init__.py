"""What a producer needs: ``from dspyq import predict``."""

import logging
import os

from dspyq.celery_app.application import app as _app
from dspyq.client.predict import predict
from dspyq.prediction.prediction import Metadata, Prediction, Usage

# A library says nothing on its own account; its host configures logging.
logging.getLogger("dspyq").addHandler(logging.NullHandler())

__all__ = ["Metadata", "Prediction", "Usage", "predict"]


def _forget_connections() -> None:
    """Give a forked child connections of its own: web servers fork after they have loaded the application."""
    _app._after_fork()  # noqa: SLF001 - Celery runs it only for forks by multiprocessing
    if (backend := _app._backend_cache) is not None:  # noqa: SLF001 - looking must not create one
        backend.result_consumer._after_fork()  # noqa: SLF001 - as above


os.register_at_fork(after_in_child=_forget_connections)
