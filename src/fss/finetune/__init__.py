"""Fine-tune strategies: injected into a finished backbone, and merged back into plain layers."""

from fss.finetune.base import Strategy, report_trainable

__all__ = ["Strategy", "report_trainable"]
