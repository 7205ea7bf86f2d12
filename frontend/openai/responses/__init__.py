"""POST /v1/responses: its types, its body to a job, its answer to bytes."""
