"""A generation request, from the caller to the last token."""
