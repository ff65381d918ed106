"""Run the command line as ``python -m dspyq``."""

from dspyq.cli.main import main

main()
