"""One thread: small decompositions spend their time waiting for a second one wherever the cores are shared."""

import torch

torch.set_num_threads(1)
