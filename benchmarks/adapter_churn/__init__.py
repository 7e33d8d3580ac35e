"""A thousand registered adapters, some of them asked all the time, while others come, go and are replaced."""
