"""Anthropic's Messages API as values: its types, its body to a job, its reply to bytes, its errors. Pure."""
