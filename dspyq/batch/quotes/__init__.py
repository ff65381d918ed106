"""What a batch would cost and take, before it is run."""
