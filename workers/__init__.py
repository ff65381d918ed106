"""What a worker needs: ``celery -A workers worker``."""

from producer import app
from workers import lifecycle

__all__ = ["app"]

lifecycle.refuse_a_faulty_configuration()
lifecycle.connect()
