"""Small parts that depend on nothing else of dspyq: events, money, time windows, a small HTTP server."""
