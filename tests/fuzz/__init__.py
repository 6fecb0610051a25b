"""Requests by the thousand that nobody would write, against the runtime as a process."""
