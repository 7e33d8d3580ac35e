"""Does the gateway answer as transformers and PEFT do on the same files, for every way of training?

`python -m benchmarks.fidelity --help`
"""
