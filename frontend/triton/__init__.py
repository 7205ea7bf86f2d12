"""The client of the model in Triton: what the model declares, the tokens of a request, and its KV cache."""
