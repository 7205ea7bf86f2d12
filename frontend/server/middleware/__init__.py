"""The steps of every request before its route: request id, CORS, API key and rate limit."""
