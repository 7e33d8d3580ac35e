"""What happens around the steps of a run: one callback of transformers' Trainer per file."""
