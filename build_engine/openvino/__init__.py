"""The CPU engine: its graph, its weights, its tokenizer, and the build that publishes them."""
