"""Batch interfaces of providers, behind one protocol. Nothing here keeps state, and no transport repeats a request."""
