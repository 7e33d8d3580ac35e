"""Speed of single linear layers on this CPU: our kernels against what torch and vLLM have."""
