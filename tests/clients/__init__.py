"""Clients that others wrote, against the runtime as it is served."""
