"""Simulation of a fleet: spines, the Redis of money, workers and outages, from measured costs."""
