"""Requests per second and memory of caches, ours and others'; run it with ``python -m benchmarks.caching``."""
