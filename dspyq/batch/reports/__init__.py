"""What a batch came to."""
