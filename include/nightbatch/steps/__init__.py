"""The verbs, in path order: each reads a port, asks core, writes a port, and is safe to repeat."""
