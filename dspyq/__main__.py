"""Run the command line as ``python -m dspyq``."""

from dspyq.main import main

main()
