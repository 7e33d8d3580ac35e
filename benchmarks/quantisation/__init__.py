"""What quantising a base costs and brings: size, memory, quality, task accuracy and speed, side by side.

`python -m benchmarks.quantisation --help` tells how to run it; docs/quantisation-report.md is what it found.
"""
