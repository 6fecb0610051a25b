"""Thousands of agents on simulated nodes: what the operators of the benchmarks are measured with."""
