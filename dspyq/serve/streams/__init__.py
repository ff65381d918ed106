"""Predictions as server-sent events, while their text comes."""
