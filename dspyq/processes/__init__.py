"""Several workers under one parent, which imports the standard library alone: it lives beside them all the time."""
