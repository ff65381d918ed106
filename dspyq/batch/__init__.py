"""Batches: a file in, a file out, each row once, each question paid once."""
