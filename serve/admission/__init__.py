"""The waiting room in front of the engine."""
