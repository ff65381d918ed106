"""Clients that wait: how long, and how many."""
