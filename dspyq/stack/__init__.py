"""The stack of ``dspyq demo`` and ``dspyq up``."""
