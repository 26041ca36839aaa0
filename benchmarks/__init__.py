"""Benchmarks: every comparison measures both sides in one run."""
