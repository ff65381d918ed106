"""``dspyq batch``."""
