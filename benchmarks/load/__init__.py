"""Load tests from a schedule that is fixed before the first request: what a server held, and whether that counts.

Words and rules: docs/benchmarks.md.
"""
