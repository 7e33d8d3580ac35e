"""Do outside tools measure what `hotswap bench` measures? The same load on the same server by both, in turns.

`python -m benchmarks.agreement --help` tells how to run it; docs/benchmarks.md says what each tool's words mean.
"""
