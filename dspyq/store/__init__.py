"""Redis: clients and Lua scripts."""
