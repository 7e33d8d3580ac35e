"""Make a smaller base, measure what it cost, and bring back part of it."""
