"""The process of ``dspyq serve``: its start and end, its protocol, its logs and metrics."""
