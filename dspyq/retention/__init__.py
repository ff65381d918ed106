"""Removal of what is stored of a tenant, of a unit, or from before a day."""
