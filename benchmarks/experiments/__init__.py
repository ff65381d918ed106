"""Simulated experiments: ``make experiments``. They need numpy, which the package does not."""
