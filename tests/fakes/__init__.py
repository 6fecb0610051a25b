"""Stand-ins for the outside world, shared by all tests; each speaks the real protocol."""
