"""The registry: which versions are known, which one each alias should serve, and what happened."""
