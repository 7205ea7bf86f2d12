"""OpenAI's chat API over a Triton model that speaks token ids: templates, tokens, text and HTTP, no model."""
