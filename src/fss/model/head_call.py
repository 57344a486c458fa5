"""Call a head as it declares: for all supports or each of them, in rounds, and with gradients at test time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Generator, Tensor

from fss.methods.base import FewShotHead
from fss.types import EpisodeFeatures, HeadOutput

PREVIOUS = "previous_prediction"
"""Extra that holds the state of the round before."""


def call_head(head: FewShotHead, features: EpisodeFeatures, size: tuple[int, int]) -> HeadOutput:
    """Score a batch of episodes.

    Args:
        head: called as often as its shot rule and its rounds say.
        features: what it declared.
        size: height and width of the images.

    Returns:
        Its output. In training with ``shot_rule="each"`` the logits are the mean over the supports, and ``shots`` holds
        the outputs that the loss is computed from.
    """
    if head.needs_grad_in_eval and not head.training:
        with torch.inference_mode(False), torch.enable_grad():
            output = _call(head, _with_gradients(features), size)
        return _without_graph(output)
    return _call(head, features, size)


def generators(head: FewShotHead, seeds: Sequence[int], episodes: int) -> list[Generator]:
    """Return the random generators of a batch.

    Args:
        head: declares whether it draws anything.
        seeds: one per episode; none: 0 for all of them.
        episodes: their number.

    Returns:
        One per episode, on the CPU; none if the head draws nothing.
    """
    if not head.spec.draws:
        return []
    return [Generator().manual_seed(seed) for seed in (seeds or [0] * episodes)]


def _call(head: FewShotHead, features: EpisodeFeatures, size: tuple[int, int]) -> HeadOutput:
    shots = features.support_labels.shape[1]
    if head.spec.shot_rule == "joint" or shots == 1:
        return _refined(head, features)
    outputs = [_refined(head, _of_shot(features, k)) for k in range(shots)]
    if head.training:
        return HeadOutput(torch.stack([o.logits.detach() for o in outputs]).mean(dim=0), shots=outputs)
    return replace(head.merge_shots(outputs, size), shots=outputs)


def _refined(head: FewShotHead, features: EpisodeFeatures) -> HeadOutput:
    output: HeadOutput = head(features)
    rounds = head.training_rounds if head.training else head.refinement_rounds
    for _ in range(rounds - 1):
        if output.state is None:
            break
        output = head(replace(features, extras={**features.extras, PREVIOUS: output.state}))
    return output


def _of_shot(features: EpisodeFeatures, k: int) -> EpisodeFeatures:
    """Return the features of an episode whose only support is the k-th one."""
    one = slice(k, k + 1)
    return replace(
        features,
        support={i: f[:, one] for i, f in features.support.items()},
        support_taps={i: [f[:, one] for f in fs] for i, fs in features.support_taps.items()},
        support_labels=features.support_labels[:, one],
    )


def _with_gradients(features: EpisodeFeatures) -> EpisodeFeatures:
    """Return features without their past that may take part in gradients, which inference mode rules out for its own.

    Called outside of inference mode, where a copy of its tensors is an ordinary one.
    """
    return _mapped(features, lambda t: t.clone() if t.is_inference() else t.detach())


def _mapped(features: EpisodeFeatures, f: Callable[[Tensor], Tensor]) -> EpisodeFeatures:
    def maps(found: Mapping[int, Tensor]) -> dict[int, Tensor]:
        return {i: f(t) for i, t in found.items()}

    def taps(found: Mapping[int, list[Tensor]]) -> dict[int, list[Tensor]]:
        return {i: [f(t) for t in ts] for i, ts in found.items()}

    return replace(
        features,
        query=maps(features.query),
        support=maps(features.support),
        support_labels=f(features.support_labels),
        query_taps=taps(features.query_taps),
        support_taps=taps(features.support_taps),
        extras={name: f(t) for name, t in features.extras.items()},
    )


def _without_graph(output: HeadOutput) -> HeadOutput:
    return replace(
        output,
        logits=output.logits.detach(),
        aux_logits=[replace(aux, logits=aux.logits.detach()) for aux in output.aux_logits],
        aux_losses={name: (value.detach(), weight) for name, (value, weight) in output.aux_losses.items()},
        state=None if output.state is None else output.state.detach(),
        branch_logits={name: logits.detach() for name, logits in output.branch_logits.items()},
        shots=[_without_graph(shot) for shot in output.shots],
    )
