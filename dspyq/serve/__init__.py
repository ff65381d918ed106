"""The HTTP door: predictions for any client, in any language."""
