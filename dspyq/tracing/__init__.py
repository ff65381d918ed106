"""OpenTelemetry spans, and trace propagation in messages."""
