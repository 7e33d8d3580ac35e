"""Where the files of versions are kept, and who still needs them."""
