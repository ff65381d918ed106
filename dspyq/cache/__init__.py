"""Claims and answers: one model call for a question, and the caches in Redis and in memory."""
