"""Quotes: the cost and duration of a batch, estimated before it runs."""
