"""The guards around every model call: circuit breaker, rate limit and budget. They know nothing of each other."""
