"""Streams of predictions: the text of a run while it comes, in a log in Redis that any number of listeners read."""
