"""The application that ``celery -A workers worker``, ``flower`` and ``beat`` find."""

from dspyq.celery import app

__all__ = ["app"]
