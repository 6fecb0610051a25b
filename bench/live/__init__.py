"""Benchmarks of scaling on the real node. Layer: tooling."""
