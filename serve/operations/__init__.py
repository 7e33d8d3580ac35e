"""Verbs of the admin API as operations: they go on when the client leaves, and can be asked for again."""
