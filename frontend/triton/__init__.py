"""The model in Triton: what it declares, the token stream of a request, its KV cache."""
