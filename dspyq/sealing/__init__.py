"""Sealing of content: authenticated encryption, the keys for it, and sealed files. It reads no settings."""
