"""Speed of single linear layers on this CPU: the low-bit kernels against what torch has."""
