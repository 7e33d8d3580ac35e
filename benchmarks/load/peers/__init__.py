"""Our gateway and others on the same base, started with equal settings, under the same load in turns.

`hotswap bench peers --help` tells how to run it; docs/benchmarks.md says what is equal and what is not.
"""
