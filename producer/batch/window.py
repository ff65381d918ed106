"""The hours in which a batch may run; it lives in ``config``, which checks the ones that are configured."""

from config.window import Window

__all__ = ["Window"]
