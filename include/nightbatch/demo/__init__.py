"""Everything the demo needs on one machine: the services it talks to, and the show itself."""
