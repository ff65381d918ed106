"""The command line, and the embedded stack behind ``dspyq demo`` and ``dspyq up``."""
