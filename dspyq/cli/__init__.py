"""The ``dspyq`` command."""
