"""POST /v1/completions: its types, its body to a job, its reply to bytes."""
