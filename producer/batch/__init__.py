"""Batches: a file in, a file out."""
