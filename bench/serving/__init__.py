"""Servers, models and load for the benchmarks of the runtime. Layer: tooling."""
