"""Does the fast path for adapters on CPUs answer as vLLM's own operators do?

`python -m benchmarks.fast_path --help`
"""
