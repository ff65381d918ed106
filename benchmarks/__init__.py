"""Costs of dspyq beside plain Celery, dramatiq, arq and bare DSPy threads: ``python -m benchmarks``."""
