"""Keys of the HTTP API: their form, what is kept of them, who may change them, and how a process verifies one."""
