"""Feature extraction: stages, support views, taps, and which stages record a graph."""

from __future__ import annotations

import pytest
import torch
from tests.methods.fakes import Affine, inputs, tiny
from tests.model.tokens import tokens
from torch import Tensor, nn

from fss.errors import FssError
from fss.finetune.freeze import Freeze
from fss.finetune.full import Full
from fss.finetune.svf import SVF
from fss.model.features import extract
from fss.nn.resize import up
from fss.types import FeatureSpec

ALL = FeatureSpec(stages=(0, 1, 2, 3, 4))


def test_declared_stages_and_no_others() -> None:
    query, supports, labels = inputs(2, 3)
    found = extract(tiny(), FeatureSpec(stages=(1, 3)), query, supports, labels)
    assert set(found.query) == set(found.support) == {1, 3}
    assert found.query[3].shape == (2, 16, 5, 5)
    assert found.support[3].shape == (2, 3, 16, 5, 5)
    assert found.query_taps == {}
    assert found.query_label is None
    assert torch.equal(found.support_labels, labels)


def test_stages_above_the_last_declared_do_not_run() -> None:
    backbone = tiny()

    def fail(*_: object) -> None:
        raise AssertionError("stage 3 ran")

    backbone.layer3.register_forward_hook(fail)
    extract(backbone, FeatureSpec(stages=(2,)), *inputs())
    with pytest.raises(AssertionError, match="stage 3 ran"):
        extract(backbone, FeatureSpec(stages=(3,)), *inputs())


def test_every_image_has_its_own_features() -> None:
    """Slots are not mixed up between batch and shots."""
    backbone = tiny()
    query, supports, labels = inputs(2, 3)
    found = extract(backbone, ALL, query, supports, labels)
    with torch.no_grad():
        for stage, expected in enumerate(backbone(query)):
            assert torch.allclose(found.query[stage], expected, atol=1e-5)
        for b in range(2):
            for k in range(3):
                for stage, expected in enumerate(backbone(supports[b, k][None])):
                    assert torch.allclose(found.support[stage][b, k], expected[0], atol=1e-5)


def test_masked_image() -> None:
    query, supports, labels = inputs(2, 2)
    spec = FeatureSpec(stages=(0, 4), support_view="masked_image")
    found = extract(tiny(), spec, query, supports, labels)
    masked = supports * (labels == 1).float()[:, :, None]
    plain = extract(tiny(), FeatureSpec(stages=(0, 4)), query, masked, labels)
    other = extract(tiny(), FeatureSpec(stages=(0, 4)), query, supports, labels)
    for stage in (0, 4):
        assert torch.equal(found.support[stage], plain.support[stage])
        assert not torch.allclose(found.support[stage], other.support[stage])
        assert torch.equal(found.query[stage], other.query[stage])


SOFT = 36  # a side whose resized masks are soft; sides 8n + 1 sample the mask exactly


def test_masked_before_stage_4() -> None:
    backbone = tiny()
    query, supports, labels = inputs(2, 2, size=SOFT)
    labels[..., 18:, :] = 0  # ends between two rows of the feature map
    spec = FeatureSpec(stages=(2, 3, 4), support_view="masked_before_stage4")
    found = extract(backbone, spec, query, supports, labels)
    plain = extract(backbone, FeatureSpec(stages=(2, 3, 4)), query, supports, labels)
    assert torch.equal(found.support[2], plain.support[2])
    for stage in (2, 3, 4):
        assert torch.equal(found.query[stage], plain.query[stage]), "the query is never masked"
    for k in range(2):
        mask = up((labels[:, k] == 1).float()[:, None], (5, 5))
        assert float(mask[mask < 1].max()) > 0, "a soft mask"
        with torch.no_grad():
            expected = backbone.stage(4)(plain.support[3][:, k] * mask)
        assert torch.allclose(found.support[4][:, k], expected, atol=1e-6)
        assert not torch.allclose(found.support[4][:, k], plain.support[4][:, k])


def test_masking_before_stage_4_leaves_stage_3_alone() -> None:
    """Prototypes come from unmasked maps (methods.md section 2); double masking shows where masks are soft."""
    given = inputs(2, 2, size=SOFT)
    found = extract(tiny(), FeatureSpec(stages=(3, 4), support_view="masked_before_stage4"), *given)
    plain = extract(tiny(), FeatureSpec(stages=(3,)), *given)
    assert torch.equal(found.support[3], plain.support[3])


def test_by_hand_on_a_backbone_of_pooling() -> None:
    query = torch.arange(64.0).reshape(1, 1, 8, 8).expand(1, 3, 8, 8)
    labels = torch.ones(1, 1, 8, 8, dtype=torch.uint8)
    found = extract(Affine(), FeatureSpec(stages=(0, 2)), query, query[:, None] + 1, labels)  # type: ignore[arg-type]
    assert found.query[0][0, 0, 0].tolist() == [4.5, 6.5, 8.5, 10.5]
    assert found.support[2][0, 0, 0].tolist() == [[14.5, 18.5], [46.5, 50.5]]


def tapped_by_hand(backbone: nn.Module, stage: int, x: Tensor) -> list[Tensor]:
    """Outputs of each block of a stage before its last ReLU, from the definition of a basic block."""
    with torch.no_grad():
        for earlier in range(stage):
            x = backbone.stage(earlier)(x)  # type: ignore[operator]
        found = []
        for block in backbone.stage(stage):  # type: ignore[operator]
            out = block.bn2(block.conv2(block.bn1(block.conv1(x)).relu()))
            out = out + (x if block.downsample is None else block.downsample(x))
            found.append(out)
            x = out.relu()
    return found


@pytest.mark.parametrize("training", [False, True])
def test_taps_are_the_values_before_the_last_relu(training: bool) -> None:
    backbone = tiny().train(training)
    query, supports, labels = inputs(2, 2)
    spec = FeatureSpec(stages=(3,), taps=(2, 3, 4))
    found = extract(backbone, spec, query, supports, labels)
    assert set(found.query_taps) == set(found.support_taps) == {2, 3, 4}
    assert set(found.query) == {3}
    for stage in (2, 3, 4):
        expected = tapped_by_hand(backbone, stage, query)
        assert len(found.query_taps[stage]) == len(found.support_taps[stage]) == 2
        for block in range(2):
            own = found.query_taps[stage][block]
            assert float(own.detach().min()) < -0.01, "a tap after the ReLU would have no negative values"
            assert torch.allclose(own, expected[block], atol=1e-5)
        for k in range(2):
            expected = tapped_by_hand(backbone, stage, supports[:, k])
            for block in range(2):
                assert torch.allclose(found.support_taps[stage][block][:, k], expected[block], atol=1e-5)
    assert torch.allclose(found.query_taps[3][-1].relu(), found.query[3])


def test_taps_leave_no_hooks_even_after_an_error() -> None:
    backbone = tiny()
    spec = FeatureSpec(stages=(), taps=(2,))

    def fail(*_: object) -> None:
        raise RuntimeError("boom")

    handle = backbone.layer2[1].register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="boom"):
        extract(backbone, spec, *inputs())
    handle.remove()
    extract(backbone, spec, *inputs())
    assert not any(m._forward_pre_hooks for m in backbone.modules())


def test_taps_of_a_stage_without_blocks() -> None:
    with pytest.raises(ValueError, match="taps need residual blocks"):
        extract(tiny(), FeatureSpec(stages=(), taps=(0,)), *inputs())


def test_together_and_apart_are_equal_in_evaluation() -> None:
    """In evaluation images may share a batch; `norm_mode=train` then makes no difference either."""
    backbone = tiny()
    one = extract(backbone, ALL, *inputs(2, 3))
    backbone.norm_mode = "train"
    other = extract(backbone.eval(), ALL, *inputs(2, 3))
    for stage in range(5):
        assert torch.equal(one.query[stage], other.query[stage])
    sizes: list[int] = []
    handle = backbone.layer0.register_forward_pre_hook(lambda _, x: sizes.append(len(x[0])))
    extract(backbone, ALL, *inputs(2, 3))
    backbone.train()
    apart = extract(backbone, ALL, *inputs(2, 3))
    backbone.norm_mode = "eval"
    backbone.train()
    extract(backbone, ALL, *inputs(2, 3))
    handle.remove()
    assert sizes == [8, 2, 2, 2, 2, 8]
    assert not torch.allclose(apart.query[4], one.query[4]), "batch statistics must be used there"


def test_slots_with_batch_statistics_are_independent() -> None:
    """PFENet's original mode: the query's features must not depend on the supports."""
    backbone = tiny()
    backbone.norm_mode = "train"
    backbone.train()
    query, supports, labels = inputs(2, 2)
    one = extract(backbone, ALL, query, supports, labels)
    other = extract(backbone, ALL, query, supports + 5, labels)
    assert torch.allclose(one.query[4], other.query[4], atol=1e-5)
    assert not torch.allclose(one.support[0], other.support[0])


@pytest.mark.parametrize(
    ("strategy", "first"), [(Freeze(), None), (SVF(), 2), (SVF(stages=(4,)), 4), (Full(stages=(3,)), 3)]
)
def test_frozen_stages_record_no_graph(strategy: Freeze | SVF | Full, first: int | None) -> None:
    backbone = tiny()
    strategy.apply(backbone)
    backbone.train()
    spec = FeatureSpec(stages=(0, 1, 2, 3, 4), support_view="masked_before_stage4")
    found = extract(backbone, spec, *inputs())
    for stage in range(5):
        expected = first is not None and stage >= first
        assert found.query[stage].requires_grad == expected, stage
        assert found.support[stage].requires_grad == expected, stage


def test_extras_are_handed_on() -> None:
    extra = torch.ones(2)
    found = extract(tiny(), FeatureSpec(stages=(0,)), *inputs(), {"boundary": extra})
    assert found.extras["boundary"] is extra


def test_a_plain_transformer_runs_once_for_all_stages_and_taps() -> None:
    """Features equal those of its own call, image by image; support images are masked before it."""
    backbone = tokens(depth=2)
    query, supports, labels = inputs(2, 2, size=35)
    spec = FeatureSpec(stages=(2, 4), taps=(3, 4), support_view="masked_image")
    with torch.no_grad():
        found = extract(backbone, spec, query, supports, labels)
        assert backbone.calls == 6, "query and supports in one batch, once"
        masked = supports * (labels == 1).float()[:, :, None]
        for images, stages, taps in (
            (query, found.query, found.query_taps),
            *((masked[:, k], {i: m[:, k] for i, m in found.support.items()},
               {i: [m[:, k] for m in ms] for i, ms in found.support_taps.items()}) for k in range(2)),
        ):  # fmt: skip
            expected, blocks = backbone.maps(images, (2, 4), (3, 4))
            assert stages.keys() == {2, 4}
            assert stages[4].shape == (2, 8, 5, 5)
            for i in (2, 4):
                torch.testing.assert_close(stages[i], expected[i])
            for i in (3, 4):
                assert len(taps[i]) == 2
                for one, other in zip(taps[i], blocks[i], strict=True):
                    torch.testing.assert_close(one, other)
    assert torch.equal(found.query_taps[4][-1], found.query[4])


def test_a_plain_transformer_cannot_be_masked_between_stages() -> None:
    spec = FeatureSpec(stages=(3, 4), support_view="masked_before_stage4")
    with pytest.raises(FssError, match="Tokens cannot start at stage 4"):
        extract(tokens(), spec, *inputs(size=35))


def test_slots_of_a_plain_transformer_are_apart_with_batch_statistics() -> None:
    backbone = tokens()
    together = extract(backbone, FeatureSpec(stages=(4,)), *inputs(2, 3, size=35))
    backbone.norm_mode = "train"
    apart = extract(backbone.train(), FeatureSpec(stages=(4,)), *inputs(2, 3, size=35))
    torch.testing.assert_close(together.query[4], apart.query[4])
    torch.testing.assert_close(together.support[4], apart.support[4])
