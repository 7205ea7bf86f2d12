"""What every request passes before it reaches a route: request id, CORS, API key and rate limit."""
