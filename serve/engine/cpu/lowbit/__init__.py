"""Linear layers whose weights have 4, 8 or 16 bits, on CPUs with AVX2: what the layers call is in ops.py."""
