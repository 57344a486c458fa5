"""Fine-tuning strategies: injected into a pretrained backbone, and merged back into plain layers."""

from fss.finetune.any_module import apply, merge
from fss.finetune.base import Strategy, load_trained_state, report_trainable, trained_state
from fss.finetune.layers.module_stages import ModuleStages

__all__ = [
    "ModuleStages",
    "Strategy",
    "apply",
    "load_trained_state",
    "merge",
    "report_trainable",
    "trained_state",
]
