"""Cycle-consistent cross attention and the draw of its keys (CyCTR, arXiv 2106.02320, section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fss.nn.dropout import SharedDropout

EXCLUDED = -10000.0
"""Added to the scores of keys that are padded or inconsistent (released constant)."""


@dataclass(frozen=True)
class Keys:
    """The support tokens that queries attend to.

    Attributes:
        position: positions of the keys among all support tokens, (B, n).
        inside: whether a key counts as one of the object, (B, n).
        padded: whether a key counts as one of the padding, (B, n).
    """

    position: Tensor
    inside: Tensor
    padded: Tensor


def draw_keys(
    inside: Tensor, padded: Tensor, per_side: int, generators: Sequence[torch.Generator | None], misread: bool = False
) -> Keys:
    """Draw as many keys of the object as of the background; a side with too few tokens is taken whole.

    The draw runs on the CPU, so that it does not depend on the device.

    Args:
        inside: support tokens of the object, (B, M).
        padded: support tokens in the padding, (B, M).
        per_side: keys of each side; what a side lacks, the other one fills up.
        generators: generator of each episode's draw; None: torch's global one.
        misread: read the flags of a drawn key at its index among the tokens of its side, as the release does, instead
            of at its position.

    Returns:
        min(M, 2 per_side) keys of each episode.
    """
    drawn = [
        _draw(row, hidden, per_side, generator, misread)
        for row, hidden, generator in zip(inside.cpu(), padded.cpu(), generators, strict=True)
    ]
    position, flags, pads = (torch.stack(parts).to(inside.device) for parts in zip(*drawn, strict=True))
    return Keys(position, flags, pads)


def _draw(
    inside: Tensor, padded: Tensor, per_side: int, generator: torch.Generator | None, misread: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return positions and flags of the keys of one episode."""
    sides = (inside.nonzero().flatten(), (~inside).nonzero().flatten())
    scarce = next((i for i, side in enumerate(sides) if len(side) < per_side), None)
    taken, read = [], []
    for i, side in enumerate(sides):
        if i == scarce:
            taken.append(side)
            read.append(side)
            continue
        count = per_side if scarce is None else 2 * per_side - len(sides[scarce])
        index = torch.randperm(len(side), generator=generator)[:count]
        taken.append(side[index])
        read.append(index if misread else side[index])
    at = torch.cat(read)
    return torch.cat(taken), inside[at], padded[at]


class CycleAttention(nn.Module):
    """Multi-head attention of the query to support tokens, less those whose best match leads back to the other class.

    A key is consistent in a head if the query position that scores it highest itself scores a key of the same class
    highest. Which keys are consistent is decided without gradients.

    Attributes:
        query_chunk: query positions whose attention is held in memory at a time; 0: all.
    """

    def __init__(self, channels: int, heads: int, dropout: float, query_chunk: int = 0) -> None:
        """Build the projections.

        Args:
            channels: channels of the tokens, a multiple of ``heads``.
            heads: number of heads.
            dropout: share of attention weights, of outputs, and of verdicts of inconsistency dropped in training.
            query_chunk: see the attribute.
        """
        super().__init__()
        self.heads = heads
        self.query_chunk = query_chunk
        self.query = nn.Linear(channels, channels, bias=False)
        self.key = nn.Linear(channels, channels, bias=False)
        self.value = nn.Linear(channels, channels, bias=False)
        self.output = nn.Linear(channels, channels, bias=False)
        self.drop_verdicts = SharedDropout(dropout)
        self.drop_weights = SharedDropout(dropout)
        self.drop_output = SharedDropout(dropout)
        for layer in (self.query, self.key, self.value, self.output):
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, query: Tensor, support: Tensor, inside: Tensor, padded: Tensor) -> Tensor:
        """Attend.

        Args:
            query: tokens of the query, (B, N, C).
            support: the keys, (B, n, C).
            inside: whether each key counts as one of the object, (B, n).
            padded: keys that are not attended to, (B, n).

        Returns:
            (B, N, C).
        """
        q, k, v = self._split(self.query(query)), self._split(self.key(support)), self._split(self.value(support))
        q = q / q.shape[-1] ** 0.5
        whole = not 0 < self.query_chunk < q.shape[2]
        parts = [q] if whole else list(q.split(self.query_chunk, dim=2))
        with torch.no_grad():
            inconsistent = ~consistent(parts, k, inside)
            kept = self.drop_verdicts(inconsistent.to(q.dtype)) > 0
            bias = (kept | padded[:, None]).to(q.dtype)[:, :, None] * EXCLUDED
        if whole or not torch.is_grad_enabled():
            attended = [self._attend(part, k, v, bias) for part in parts]
        else:  # the backward pass computes each chunk's attention again, with the same seed of its dropout
            attended = [checkpoint(self._attend, part, k, v, bias, use_reentrant=False) for part in parts]
        result: Tensor = self.drop_output(self.output(torch.cat(attended, dim=2).transpose(1, 2).flatten(2)))
        return result

    def _split(self, tokens: Tensor) -> Tensor:
        """Return tokens (B, N, C) by head, (B, heads, N, C / heads)."""
        return tokens.reshape(*tokens.shape[:2], self.heads, -1).transpose(1, 2)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
        attended: Tensor = self.drop_weights((query @ key.mT + bias).softmax(dim=-1)) @ value
        return attended


def consistent(queries: Sequence[Tensor], keys: Tensor, inside: Tensor) -> Tensor:
    """Follow every key to its best query and from there to that query's best key.

    Args:
        queries: the queries by head, in chunks (B, heads, N_i, c).
        keys: the keys by head, (B, heads, n, c).
        inside: class of each key, (B, n).

    Returns:
        Whether the key at the end has the class of the one at the start, (B, heads, n).
    """
    best_query, best_score, best_key, start = None, None, [], 0
    for part in queries:
        scores = part @ keys.mT
        best_key.append(scores.argmax(dim=3))
        score, position = scores.max(dim=2)
        if best_query is None or best_score is None:
            best_query, best_score = position, score
        else:
            better = score > best_score
            best_query, best_score = position.add(start).where(better, best_query), score.where(better, best_score)
        start += part.shape[2]
    assert best_query is not None
    back = torch.cat(best_key, dim=2).gather(2, best_query)
    classes = inside[:, None].expand(-1, keys.shape[1], -1)
    return classes.gather(2, back) == classes
