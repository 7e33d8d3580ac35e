"""Cleaning steps: each is a function from examples to a StepResult, without state, files or settings."""
