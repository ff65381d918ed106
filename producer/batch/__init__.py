"""Batches: a file of rows in, a file of answers out, each row once, each question paid for once."""
