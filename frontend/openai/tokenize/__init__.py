"""POST /tokenize, /detokenize and /v1/chat/completions/render: their types."""
