"""fss: experiments in few-shot segmentation with Singular Value Fine-tuning.

``fss.load(path)`` returns a trained model, ``fss.Predictor.load(path)`` one for images of your own; everything else
lives in the sub-packages. Importing this package loads no heavy library.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["Predictor", "__version__", "load"]


def __getattr__(name: str) -> Any:
    """Import :func:`fss.model.load.load` and :class:`fss.predictor.Predictor` only when they are asked for."""
    if name == "load":
        from fss.model.load import load

        return load
    if name == "Predictor":
        from fss.predictor import Predictor

        return Predictor
    raise AttributeError(f"module 'fss' has no attribute {name!r}")
