"""Local services for the demo and the tests: from Python wheels, on loopback, gone with their owner."""
