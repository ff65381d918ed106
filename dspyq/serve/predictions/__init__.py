"""Predictions as resources: their names, their state, and what a client does to one."""
