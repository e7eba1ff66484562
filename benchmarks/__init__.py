"""Measure speed and scaling: python -m benchmarks.throughput, python -m benchmarks.scaling."""
