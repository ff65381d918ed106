"""Runs the simulations and prints one table; the exit status is 1 if a bound does not hold."""

import sys

from benchmarks.experiments.pieces import main
from benchmarks.experiments.simulated import FEWEST, PARTS

if __name__ == "__main__":
    sys.exit(
        main(
            PARTS,
            module="benchmarks.experiments",
            title="Simulated experiments",
            experiments=10_000,
            fewest=FEWEST,
        )
    )
