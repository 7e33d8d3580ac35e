"""Tokens per second of LoRA training: Hotswap, TRL with its defaults, and a plain transformers loop.

`python -m benchmarks.training_throughput --help`
"""
