"""What a head returned as state at the last visit of every training image and class (CANet's history)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed

from fss.nn.distributed import rank_and_world
from fss.types import Episode


class StateMemory:
    """Remembers states by query and class, the same in every process."""

    def __init__(self) -> None:
        self._states: dict[str, Tensor] = {}

    def recall(self, episode: Episode) -> Tensor | None:
        """Return the states of a batch.

        Args:
            episode: the batch.

        Returns:
            (B, ...) on the device of the batch, zeros where there is none; None if there is none at all.
        """
        known = [self._states.get(key) for key in _keys(episode)]
        example = next((state for state in known if state is not None), None)
        if example is None:
            return None
        states = torch.stack([torch.zeros_like(example) if state is None else state for state in known])
        return states.to(episode.query.device)

    def keep(self, episode: Episode, state: Tensor) -> None:
        """Remember the states of a batch; all processes must call it together.

        Args:
            episode: the batch.
            state: (B, ...).
        """
        own = dict(zip(_keys(episode), state.detach().cpu().unbind(), strict=True))
        every: list[dict[str, Tensor] | None] = [own]
        world = rank_and_world()[1]
        if world > 1:
            every = [None] * world
            distributed.all_gather_object(every, own)
        for states in every:
            self._states |= {key: value.clone() for key, value in (states or {}).items()}

    def state_dict(self) -> dict[str, Any]:
        """Return everything for a checkpoint."""
        return {"names": list(self._states), "states": list(self._states.values())}

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Restore what a checkpoint holds.

        Args:
            content: what :meth:`state_dict` returned.
        """
        self._states = dict(zip(content["names"], content["states"], strict=True))


def _keys(episode: Episode) -> list[str]:
    return [f"{int(c)} {name}" for c, name in zip(episode.class_id, episode.query_ids, strict=True)]
