"""The project in ``project`` is a user's: its tests run in a process of their own."""

collect_ignore = ["project"]
