"""Guards of every model call: circuit breaker, rate limit and budget, independent of each other."""
