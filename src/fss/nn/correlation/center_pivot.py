"""Center-pivot convolution: a 4D convolution that looks along one plane at a time (HSNet, arXiv 2104.01538)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fss.nn.correlation.cosine import correlation

GROUPS = 4
"""Groups of the normalisation after every convolution."""


class CenterPivotConv4d(nn.Module):
    """The sum of a convolution over the query plane and one over the support plane.

    A stride thins the support plane out: the convolution along the query is done at every t-th support position, the
    one along the support has the stride itself.
    """

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int) -> None:
        """Build both convolutions, each with its own bias.

        Args:
            c_in: channels of the input.
            c_out: channels of the output.
            kernel: side of both kernels, odd.
            stride: t, of the support plane.
        """
        super().__init__()
        self.stride = stride
        self.query = nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2)
        self.support = nn.Conv2d(c_in, c_out, kernel, stride, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve.

        Args:
            x: (B, C, h, w, u, v).

        Returns:
            (B, C', h, w, u', v') with u' = ceil(u / t).
        """
        return self._along_query(x[..., :: self.stride, :: self.stride]) + self._along_support(x)

    def of_maps(self, query: Sequence[Tensor], support: Sequence[Tensor], values: int) -> Tensor:
        """Convolve the correlation of maps without ever holding the whole of it.

        Rows of the query plane are computed one after another, and again in the backward pass.

        Args:
            query: maps of the query, as in :func:`fss.nn.correlation.cosine.correlation`.
            support: maps of the support.
            values: values of the correlation to hold at a time; at least one row is.

        Returns:
            :meth:`forward` of the correlation, up to rounding.
        """
        thin = [s[..., :: self.stride, :: self.stride] for s in support]
        out = self._along_query(correlation(query, thin))
        height, width = query[0].shape[-2:]
        row = len(query) * query[0].shape[0] * width * support[0].shape[-2] * support[0].shape[-1]
        step = max(1, values // row)

        def rows(start: int) -> Tensor:
            own = [q[:, :, start : start + step] for q in query]
            return self._along_support(correlation(own, support))

        parts = [_again_backward(rows, start) for start in range(0, height, step)]
        return out + torch.cat(parts, dim=2)

    def _along_query(self, x: Tensor) -> Tensor:
        b, c, h, w, u, v = x.shape
        y: Tensor = self.query(x.permute(0, 4, 5, 1, 2, 3).reshape(b * u * v, c, h, w))
        return y.reshape(b, u, v, -1, h, w).permute(0, 3, 4, 5, 1, 2)

    def _along_support(self, x: Tensor) -> Tensor:
        b, c, h, w, u, v = x.shape
        y: Tensor = self.support(x.permute(0, 2, 3, 1, 4, 5).reshape(b * h * w, c, u, v))
        return y.reshape(b, h, w, *y.shape[1:]).permute(0, 3, 1, 2, 4, 5)


class PivotEncoder(nn.Sequential):
    """Center-pivot convolutions, each with group normalisation over both planes and ReLU."""

    def __init__(self, channels: Sequence[int], kernels: Sequence[int], strides: Sequence[int]) -> None:
        """Build the layers.

        Args:
            channels: of the input and of every convolution; multiples of 4 but for the first.
            kernels: side of the kernels of every convolution.
            strides: of the support plane, of every convolution.
        """
        layers: list[nn.Module] = []
        for i, (kernel, stride) in enumerate(zip(kernels, strides, strict=True)):
            layers += [
                CenterPivotConv4d(channels[i], channels[i + 1], kernel, stride),
                nn.GroupNorm(GROUPS, channels[i + 1]),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*layers)

    def lean(self, x: Tensor) -> Tensor:
        """Apply the layers, keeping only the input of every convolution for the backward pass.

        Args:
            x: (B, C, h, w, u, v).

        Returns:
            As from calling the module, up to rounding.
        """
        for block in self._blocks():
            x = _again_backward(block, x)
        return x

    def of_maps(self, query: Sequence[Tensor], support: Sequence[Tensor], values: int) -> Tensor:
        """Apply the layers to the correlation of maps, as lean as :meth:`lean`.

        Args:
            query: as in :meth:`CenterPivotConv4d.of_maps`.
            support: likewise.
            values: likewise.

        Returns:
            As from calling the module with the correlation, up to rounding.
        """
        first, *rest = self._blocks()
        convolution = first[0]
        assert isinstance(convolution, CenterPivotConv4d)
        x = _again_backward(first[1:], convolution.of_maps(query, support, values))
        for block in rest:
            x = _again_backward(block, x)
        return x

    def _blocks(self) -> list[nn.Sequential]:
        layers = list(self)
        return [nn.Sequential(*layers[i : i + 3]) for i in range(0, len(layers), 3)]


def _again_backward(function: Callable[..., Tensor], *given: Tensor | int) -> Tensor:
    """Call a function whose intermediate values are not kept but computed again in the backward pass."""
    result: Tensor = checkpoint(function, *given, use_reentrant=False, preserve_rng_state=False)
    return result
