"""Messages to prompt token ids, and token ids back to text and tool calls. Pure."""

import os

# transformers, of which the template's sandbox is used, would warn that PyTorch is absent, which is intended.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
