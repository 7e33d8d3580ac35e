"""Does the fast path for adapters on CPUs answer as vLLM's own operators do? And where do its products pay?

`python -m benchmarks.fast_path --help`, `python -m benchmarks.fast_path.products`,
`python -m benchmarks.fast_path.places`
"""
