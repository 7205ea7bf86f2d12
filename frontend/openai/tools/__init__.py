"""OpenAI's function tools: their JSON types, and the conversion to our values and back."""
