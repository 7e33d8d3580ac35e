"""Load on a server from a schedule that is known before the first request; what it held, and whether that counts.

Words and rules: docs/benchmarks.md.
"""
