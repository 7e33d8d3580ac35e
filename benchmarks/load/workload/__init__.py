"""What is sent, to whom and when: known from a seed before the first request."""
