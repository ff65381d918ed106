"""Experiments: their state, the place of a unit, the sums of arms and feedback, and the statistics of those sums.

The statistics and the placement are pure functions of plain values, of the standard library alone.
"""
