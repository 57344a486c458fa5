"""One thread per test process: the suite runs one process per core, and small decompositions lose on shared ones."""

import os

import torch

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("WANDB_MODE", "disabled")
torch.set_num_threads(1)
