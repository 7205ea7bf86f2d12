"""POST /v1/chat/completions: its types, its body to a job, its reply to bytes."""
