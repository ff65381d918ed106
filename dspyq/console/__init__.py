"""Output of commands: tables, JSON and steps, for any terminal and any encoding."""
