"""Messages to prompt token ids, and token ids back to text and tool calls. Pure."""
