"""Faults of the operator's processes on a real API server, judged by its audit log. Layer: tests."""
