import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning import LightningModule, Trainer
from tests.data.fabricate import two_class_mask

from fss.data.datamodule import FewShotDataModule
from fss.data.episode_dataset import EpisodeDataset, binary_label, collate
from fss.data.episodes.options import EpisodeOptions, IndexOptions
from fss.data.epoch_sampler import EpisodeIndexSampler
from fss.data.eval_transform import eval_transform
from fss.data.options import LoaderOptions, TransformOptions
from fss.data.sources.pascal import PascalSource
from fss.data.sources.shapes import ShapesSource
from fss.errors import DataError
from fss.types import Episode, InputSpec


def _module(source, workers=0, shot=1, batch=4, episodes=None, **options):
    return FewShotDataModule(
        source,
        InputSpec(),
        fold=0,
        shot=shot,
        transforms=TransformOptions(size=65),
        index=IndexOptions(**options),
        episodes=episodes or EpisodeOptions(test_episodes=11),
        loader=LoaderOptions(batch_size=batch, test_batch_size=2, workers=workers, progress=False),
    )


def _same(a: Episode, b: Episode) -> bool:
    tensors = ("query", "query_label", "support_images", "support_labels", "class_id", "class_index", "index")
    return (
        all(torch.equal(getattr(a, n), getattr(b, n)) for n in tensors)
        and (a.query_ids, a.support_ids) == (b.query_ids, b.support_ids)
        and all(torch.equal(x, y) for x, y in zip(a.full_labels, b.full_labels, strict=True))
    )


def test_workers_do_not_change_anything(voc):
    zero, two = _module(voc), _module(voc, workers=2)
    for name in ("train", "val", "test"):
        a, b = getattr(zero, f"{name}_dataloader")(), getattr(two, f"{name}_dataloader")()
        for epoch in (0, 1):
            a.sampler.set_epoch(epoch)
            b.sampler.set_epoch(epoch)
            batches = list(zip(a, b, strict=True))
            assert len(batches) == (zero.train_batches if name == "train" else 6)
            assert all(_same(x, y) for x, y in batches)


def test_epochs_differ_in_training_only(voc):
    module = _module(voc)
    for name, differs in (("train", True), ("val", False), ("test", False)):
        loader = getattr(module, f"{name}_dataloader")()
        loader.sampler.set_epoch(0)
        first = next(iter(loader))
        loader.sampler.set_epoch(1)
        assert _same(first, next(iter(loader))) is not differs


def test_shapes_types_and_order_of_a_batch(voc):
    module = _module(voc, shot=2)
    batch = next(iter(module.test_dataloader()))
    assert batch.query.shape == (2, 3, 65, 65)
    assert batch.support_images.shape == (2, 2, 3, 65, 65)
    assert (batch.query_label.dtype, batch.class_id.dtype) == (torch.uint8, torch.int64)
    transform = eval_transform(module.transforms, module.images)
    for b in range(2):
        class_id = int(batch.class_id[b])
        assert list(module.novel_classes)[int(batch.class_index[b])] == class_id
        for k, support in enumerate(reversed(batch.support_ids[b])):  # stacked last sampled first
            label = binary_label(voc.mask(support), class_id)
            image, small = transform(voc.image(support), label, 0)
            assert torch.equal(batch.support_images[b, k], image)
            assert torch.equal(batch.support_labels[b, k], small)
        full = binary_label(voc.mask(batch.query_ids[b]), class_id)
        assert np.array_equal(batch.full_labels[b].numpy(), full)
    assert next(iter(module.train_dataloader())).full_labels == []


def test_binary_label():
    label = binary_label(two_class_mask(3, 4), 4)
    assert np.array_equal(np.unique(label), [0, 1, 255])
    assert (label == 1).sum() == 48 * 48
    assert (label == 255).sum() == 96


def test_splits_use_the_right_classes_and_images(voc):
    base = _module(voc, episodes=EpisodeOptions(selection="base", test_episodes=30))
    assert list(base.novel_classes) == [1, 2, 3, 4, 5]
    assert list(base.base_classes) == list(base.val_classes) == list(range(6, 21))
    for batch in base.val_dataloader():
        for image_id in (*batch.query_ids, *(s for supports in batch.support_ids for s in supports)):
            assert image_id.startswith("val")
            assert not set(np.unique(voc.mask(image_id))) & {1, 2, 3, 4, 5}
    dropped, kept = _module(voc), _module(voc, novel_images="keep")
    assert dropped.train_length < kept.train_length
    assert list(dropped.val_classes) == [1, 2, 3, 4, 5]


def test_validation_on_novel_classes_is_the_test(voc):
    module = _module(voc)
    assert module.val_episodes_hash == module.test_episodes_hash
    more_shots = _module(voc, episodes=EpisodeOptions(test_episodes=11, test_shot=2))
    assert more_shots.val_episodes_hash == module.test_episodes_hash != more_shots.test_episodes_hash
    assert next(iter(more_shots.test_dataloader())).support_images.shape[1] == 2
    assert next(iter(more_shots.val_dataloader())).support_images.shape[1] == 1
    few = _module(voc, episodes=EpisodeOptions(test_episodes=11, val_episodes=4))
    assert sum(len(b) for b in few.val_dataloader()) == 4


def test_dropped_classes_are_not_counted(voc, tmp_path):
    ids = [i for i in voc.ids("val") if 2 not in voc.mask(i)] + ["val_0001"]
    (tmp_path / "val.txt").write_text("\n".join(ids))
    source = ShapesSource(voc.root, val_list=tmp_path / "val.txt")
    with pytest.raises(DataError, match="thing2"):
        _module(source).setup("test")
    module = _module(source, small_classes="drop")
    assert 2 not in module.novel_classes
    for batch in module.test_dataloader():
        assert batch.class_index.max() < len(module.novel_classes)


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_batches(voc, world):
    whole = _module(voc, batch=6)
    parts = []
    for rank in range(world):
        part = _module(voc, batch=6)
        part.trainer = SimpleNamespace(global_rank=rank, world_size=world)
        parts.append(part)
    loaders = [p.train_dataloader() for p in parts]
    assert all(loader.batch_size == 6 // world for loader in loaders)
    for full, *shares in zip(whole.train_dataloader(), *loaders, strict=True):
        assert sorted(i for s in shares for i in s.index.tolist()) == full.index.tolist()
    seen = [i for p in parts for b in p.test_dataloader() for i in b.index.tolist()]
    assert sorted(seen) == list(range(11))


class _Recorder(LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen, self.tested = [], []

    def training_step(self, batch):
        self.sampler = self.trainer.train_dataloader.sampler
        self.seen.append((self.current_epoch, batch.index.tolist(), batch.query_ids))
        return self.weight.sum() + batch.query.mean()

    def test_step(self, batch):
        self.tested += batch.index.tolist()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_lightning_sets_the_epoch_and_keeps_the_sampler(voc, tmp_path):
    module, model = _module(voc, batch=8), _Recorder()
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        use_distributed_sampler=False,
    )
    trainer.fit(model, module)
    trainer.test(model, module, verbose=False)
    assert isinstance(model.sampler, EpisodeIndexSampler)
    epochs = [[q for e, _, ids in model.seen if e == n for q in ids] for n in (0, 1)]
    assert len(epochs[0]) == 8 * module.train_batches
    draws = [[module.streams.train.draw(n, i).query for i in range(len(epochs[n]))] for n in (0, 1)]
    assert epochs == draws
    assert model.tested == list(range(11))


def test_sizes_must_agree(voc, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(voc.root, root)
    Image.new("RGB", (50, 40)).save(root / "JPEGImages" / "val_0000.jpg")
    module = _module(ShapesSource(root))
    with pytest.raises(DataError, match=r"val_0000\.jpg has 40 x 50 .*val_0000\.png has 96 x 128"):
        next(iter(module.test_dataloader()))


def test_missing_data_set_says_what_to_type(tmp_path):
    for stage in ("fit", "test"):
        with pytest.raises(DataError, match=r"VOC2012.*JPEGImages"):
            _module(PascalSource(tmp_path / "VOC2012")).setup(stage)
    with pytest.raises(DataError, match="fss data shapes --root"):
        _module(ShapesSource(tmp_path / "no"))


@pytest.mark.parametrize("wrong", [{"shot": 0}, {"seed": -3}, {"fold": 9}])
def test_wrong_numbers(voc, wrong):
    with pytest.raises(DataError, match=next(iter(wrong))):
        FewShotDataModule(voc, InputSpec(), **({"fold": 0} | wrong))
    with pytest.raises(DataError, match="batch_size=200 is larger"):
        _module(voc, batch=200).train_dataloader()
    for options, bad in ((EpisodeOptions, {"selection": "val"}), (LoaderOptions, {"workers": -1})):
        with pytest.raises(DataError, match=next(iter(bad))):
            options(**bad)


def test_foreign_classes_are_refused(voc):
    module = _module(voc)
    with pytest.raises(DataError, match=r"classes \[1, 2, 3, 4, 5\]"):
        EpisodeDataset(voc, module.streams.test, eval_transform(module.transforms, module.images), 0, "test", [6, 7])
    assert callable(collate)
