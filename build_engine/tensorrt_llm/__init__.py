"""The GPU target: an AWQ Mixtral to a TensorRT-LLM engine, with NVIDIA's converter and builder, each step verified."""
