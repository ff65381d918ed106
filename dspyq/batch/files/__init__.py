"""Input files of a batch: rows in any supported form."""
