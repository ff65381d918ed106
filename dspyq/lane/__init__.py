"""The provider lane: model calls that wait together, go to a provider as one batch, at its batch price."""
