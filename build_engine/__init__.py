"""Turn an AutoAWQ Mixtral checkpoint into an engine in the Triton model repository."""
