"""A worker's metrics and health."""
