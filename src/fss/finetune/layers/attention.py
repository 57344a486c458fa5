"""The layer that replaces multi-head attention, whose projections are bare parameters in torch, not layers."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fss.finetune.layers.factored import SVFLinear
from fss.finetune.layers.tuned import TunedLayer


class SVFAttention(TunedLayer):
    """Multi-head attention with decomposed projections; query, key and value are decomposed one by one.

    Attributes:
        in_proj: stacked projections of query, key and value, three groups.
        out_proj: projection of the output.
        batch_first: as in torch.
    """

    def __init__(self, plain: nn.MultiheadAttention, in_proj: SVFLinear, out_proj: SVFLinear) -> None:
        """Take over attention's settings.

        Args:
            plain: attention with equal widths of query, key and value.
            in_proj: its decomposed input projections, with bias.
            out_proj: its decomposed output projection.
        """
        super().__init__()
        self.settings: dict[str, Any] = {
            "embed_dim": plain.embed_dim,
            "num_heads": plain.num_heads,
            "dropout": plain.dropout,
            "bias": plain.in_proj_bias is not None,
            "add_zero_attn": plain.add_zero_attn,
            "batch_first": plain.batch_first,
        }
        self.batch_first = plain.batch_first
        # torch's encoder layers read these and then skip the fast path that would bypass this forward
        self._qkv_same_embed_dim = False
        self.in_proj_bias = None
        self.in_proj = in_proj
        self.out_proj = out_proj

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Apply attention, as :class:`torch.nn.MultiheadAttention` does.

        Args:
            query: (N, L, E), or (L, N, E) without ``batch_first``, or (L, E).
            key: likewise, with source length S.
            value: likewise, with source length S.
            key_padding_mask: (N, S), or None.
            need_weights: return the attention weights too.
            attn_mask: as in torch, or None.
            average_attn_weights: average the weights over heads.
            is_causal: hint that ``attn_mask`` is causal.

        Returns:
            Output with the query's shape, and the attention weights or None.
        """
        swap = self.batch_first and query.dim() == 3
        if swap:
            query, key, value = (t.transpose(0, 1) for t in (query, key, value))
        out, weights = F.multi_head_attention_forward(
            query, key, value, self.settings["embed_dim"], self.settings["num_heads"],
            self.in_proj.weight, self.in_proj.bias, None, None, self.settings["add_zero_attn"],
            self.settings["dropout"], self.out_proj.weight, self.out_proj.bias, training=self.training,
            key_padding_mask=key_padding_mask, need_weights=need_weights, attn_mask=attn_mask,
            average_attn_weights=average_attn_weights, is_causal=is_causal,
        )  # fmt: skip
        return (out.transpose(0, 1) if swap else out), weights

    @property
    def plain_size(self) -> int:
        """Number of values of the plain attention."""
        return self.in_proj.plain_size + self.out_proj.plain_size

    @torch.no_grad()
    def merge(self) -> nn.MultiheadAttention:
        """Return plain attention with equal output."""
        weight = self.in_proj.weight
        plain = nn.MultiheadAttention(**self.settings, device=weight.device, dtype=weight.dtype)
        plain.in_proj_weight.copy_(weight)
        plain.out_proj.weight.copy_(self.out_proj.weight)
        for own, other in ((plain.in_proj_bias, self.in_proj.bias), (plain.out_proj.bias, self.out_proj.bias)):
            if own is not None and other is not None:
                own.copy_(other)
        return plain.train(self.training)


def is_supported(plain: nn.MultiheadAttention) -> bool:
    """Tell whether attention has one stacked input projection and no learned extra key."""
    return plain.in_proj_weight is not None and plain.bias_k is None
