"""A prediction: its request, its variant, its answer."""
