"""Questions: bodies of POSTs are read, sent in bulk, and answered."""
