"""POST /v1/responses: its types, its body to a job, its reply to bytes."""
