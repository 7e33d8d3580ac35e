"""One file per format that examples are read from."""
