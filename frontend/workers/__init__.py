"""Several processes that serve one address, and the coordinator that holds what they share."""
