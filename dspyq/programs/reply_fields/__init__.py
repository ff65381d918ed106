"""Text of a reply by output field while the reply comes: a splitter for each notation of DSPy's adapters."""
