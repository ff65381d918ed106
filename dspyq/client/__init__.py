"""The client of producers: send requests, wait for results, send in bulk."""
