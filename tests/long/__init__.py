"""Soaks: minutes to hours, run by `make test-long`."""
