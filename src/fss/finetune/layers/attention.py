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
        facts = ("embed_dim", "kdim", "vdim", "num_heads", "head_dim", "dropout", "add_zero_attn", "bias_k", "bias_v")
        self.answer({name: getattr(plain, name) for name in facts})
        # torch's encoder layers read this and then skip the fast path that would bypass this forward
        self._qkv_same_embed_dim = False
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
        unmasked = key_padding_mask is None and attn_mask is None and not self.settings["add_zero_attn"]
        if query is key is value and unmasked and not need_weights:
            return self._among_itself(query), None
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
    def in_proj_weight(self) -> Tensor:
        """The stacked weight of query, key and value, (3 E, E)."""
        return self.in_proj.weight

    @property
    def in_proj_bias(self) -> Tensor | None:
        """The stacked bias of query, key and value, (3 E), or None."""
        return self.in_proj.bias

    @property
    def q_proj_weight(self) -> Tensor:
        """The weight of the query, (E, E)."""
        return self.in_proj.weight.chunk(3)[0]

    @property
    def k_proj_weight(self) -> Tensor:
        """The weight of the key, (E, E)."""
        return self.in_proj.weight.chunk(3)[1]

    @property
    def v_proj_weight(self) -> Tensor:
        """The weight of the value, (E, E)."""
        return self.in_proj.weight.chunk(3)[2]

    def _among_itself(self, x: Tensor) -> Tensor:
        """Apply self-attention by calling the projections, which unlike their weights save only V x."""
        projected = self.in_proj(x)
        if x.dim() == 3 and not self.batch_first:
            projected = projected.transpose(0, 1)
        # (..., L, 3 E) to three times (..., heads, L, E / heads)
        q, k, v = (t.unflatten(-1, (self.settings["num_heads"], -1)).transpose(-2, -3) for t in projected.chunk(3, -1))
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=self.settings["dropout"] if self.training else 0.0)
        mixed = mixed.transpose(-2, -3).flatten(-2)
        if x.dim() == 3 and not self.batch_first:
            mixed = mixed.transpose(0, 1)
        y: Tensor = self.out_proj(mixed)
        return y

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
