"""COCO-20i: COCO 2014 or 2017 with 80 classes in four folds of twenty."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import get_args

from fss.commands import shell
from fss.data.reading.derived_files import cache_dir, fingerprint
from fss.data.reading.image_files import IMAGE_ENDINGS, MASK_ENDINGS, file_of
from fss.data.sources.base import (
    ContentFiles,
    Facts,
    ImageFiles,
    ListSplit,
    check_photographs,
    existing_folder,
)
from fss.data.sources.coco_masks import MaskRule, check_rule, is_complete, rasterise, rule_version
from fss.data.sources.folds import COCO_CLASSES, CocoScheme, FoldClasses, coco_fold
from fss.data.sources.id_lists import read_id_list
from fss.data.sources.manifest import Manifest, check_complete, list_hash, manifest_facts
from fss.errors import DataError

_YEARS = (2014, 2017)

_HELP = (
    "COCO-20i is expected below data.root={root} as train{year}/ID.jpg, val{year}/ID.jpg and either "
    "annotations/instances_train{year}.json and instances_val{year}.json or index masks "
    "annotations/train{year}/ID.png and val{year}/ID.png. Point data.root to such a folder, or make it from the "
    "official archives with: fss data prepare coco --root {root} --year {year} --archives DIR (or --download)"
)


class CocoSource(ImageFiles):
    """COCO images with masks of contiguous class ids 1..80, ascending by COCO category id.

        ROOT/train2014/ID.jpg                           images, also val2014
        ROOT/annotations/train2014/ID.png               index masks, used if the folder is there
        ROOT/annotations/instances_train2014.json       else masks are rasterised from it, once, into the cache
        ROOT/fss.json                                   how the index masks were made, if ``fss data prepare`` did

    Image ids are file names without extension (``COCO_val2014_000000000042`` in the official files). Unless a list is
    given, the list of a split is its images with annotations, by ascending COCO id.

    Args:
        root: folder of the data set; it is only read.
        scheme: which classes a fold holds out, ``fwb`` (as PFENet, BAM and SVF) or ``panet``.
        train_list: file of training ids.
        val_list: file of validation ids.
        masks: one folder of index masks ID.png for both splits, instead of those below root.
        progress: show a progress bar while masks are rasterised.
        mask_rule: how instances are rasterised: ``full`` (every pixel, as CyCTR) or ``first_polygon`` (as RePRI); None:
            as in fss.json, else ``full``.
        year: 2014 or 2017; None: as in fss.json, else 2014.

    Raises:
        DataError: if scheme, rule or year does not exist.
    """

    name = "coco"

    def __init__(
        self,
        root: str | Path,
        scheme: CocoScheme = "fwb",
        train_list: str | Path | None = None,
        val_list: str | Path | None = None,
        masks: str | Path | None = None,
        progress: bool = True,
        mask_rule: MaskRule | None = None,
        year: int | None = None,
    ) -> None:
        if scheme not in get_args(CocoScheme):
            coco_fold(0, scheme)  # raises
        if year not in (None, *_YEARS):
            raise DataError(f"data.year={year} is not known: choose {' or '.join(map(str, _YEARS))}.")
        self.root = Path(root).expanduser()
        self.scheme: CocoScheme = scheme
        self.masks = None if masks is None else Path(masks).expanduser()
        self.progress = progress
        self._rule = None if mask_rule is None else check_rule(mask_rule)
        self._year = year
        self._derived: dict[ListSplit, Path] = {}
        self.lists: dict[ListSplit, Path | None] = {
            "train": None if train_list is None else Path(train_list).expanduser(),
            "val": None if val_list is None else Path(val_list).expanduser(),
        }

    @property
    def class_names(self) -> dict[int, str]:
        """Class id -> name, ids 1..80."""
        return dict(COCO_CLASSES)

    def fold(self, fold: int) -> FoldClasses:
        """Return base and novel class ids.

        Args:
            fold: 0..3.

        Raises:
            DataError: if the fold does not exist.
        """
        return coco_fold(fold, self.scheme)

    @cached_property
    def manifest(self) -> Manifest | None:
        """Manifest written by ``fss data prepare``, or None."""
        return check_complete(self.root)

    @property
    def year(self) -> int:
        """Year of the images."""
        if self._year is not None:
            return self._year
        return _YEARS[0] if self.manifest is None else int(self.manifest.get("year", _YEARS[0]))

    @property
    def mask_rule(self) -> MaskRule:
        """How masks are rasterised if they are not given."""
        if self._rule is not None:
            return self._rule
        return "full" if self.manifest is None else check_rule(str(self.manifest.get("mask_rule", "full")))

    def check(self, split: ListSplit, images: bool = True) -> None:
        """Check that the folders and lists of a split exist.

        Args:
            split: which image list.
            images: whether the images are needed too.

        Raises:
            DataError: if something is missing (the message says how to get it) or the masks follow another rule.
        """
        listed = self.lists[split]
        if listed is not None and not listed.is_file():
            raise DataError(f"There is no {split} list {listed}. Give a text file with one image id per line.")
        if self.masks is not None:
            existing_folder(self.masks, "It should hold the index masks ID.png.")
        else:
            existing_folder(self.root, self._help())
            if not (self._has_masks(split) or self._instances(split).is_file()):
                raise DataError(
                    f"There is neither {self._given_masks(split)} nor {self._instances(split)}. {self._help()}"
                )
        if images:
            existing_folder(self.root / self._name(split), self._help())
            if self._is_listed(split):
                check_photographs(self, self.ids(split), self.root / self._name(split))

    def prepare(self, split: ListSplit) -> None:
        """Rasterise the masks of a split unless they exist.

        Args:
            split: which image list.

        Raises:
            DataError: if the instances are missing or damaged, or the cache cannot be written.
        """
        if self.masks is None and not self._has_masks(split):
            folder = self._mask_folder(split)
            if not is_complete(folder):
                rasterise(self._instances(split), folder, self.progress, self.mask_rule)

    def ids(self, split: ListSplit) -> list[str]:
        """Return image ids in list order.

        Args:
            split: which image list.

        Raises:
            DataError: if there is no mask, or a given list is missing, empty or holds an id twice.
        """
        listed = self.lists[split]
        if listed is not None:
            return read_id_list(listed)
        self.prepare(split)
        folder = self._mask_folder(split)
        stems = [path.stem for path in folder.glob("*.png")]
        if not stems:
            raise DataError(f"There is no mask *.png in {folder}. {self._help()}")
        return sorted(stems, key=_number)

    def image_path(self, image_id: str) -> Path:
        """Return the path of an image.

        Args:
            image_id: image id.
        """
        return file_of(self.root / self._name(self._split_of(image_id)), image_id)

    def mask_path(self, image_id: str) -> Path:
        """Return the path of a mask.

        Args:
            image_id: image id.
        """
        folder = self.masks if self.masks is not None else self._mask_folder(self._split_of(image_id))
        return file_of(folder, image_id, MASK_ENDINGS)

    def facts(self) -> Facts:
        """Return what determines results besides the images: year, mask rule, lists."""
        given = self.masks is not None or self._has_masks("val")
        own = self.masks is None and self.manifest is not None
        facts: Facts = {"name": self.name, "year": self.year}
        facts["mask_rule"] = "unknown" if given and not own else self.mask_rule
        splits: tuple[ListSplit, ...] = ("train", "val")
        for split in splits:
            if self._is_listed(split):
                ids = self.ids(split)
                facts |= {f"{split}_images": len(ids), f"{split}_list": list_hash(ids)}
        return facts | manifest_facts(self.manifest if own else None)

    @property
    def rule(self) -> str:
        """Mask rule and year."""
        return f"{self.mask_rule} {self.year}"

    def content_files(self, split: ListSplit) -> ContentFiles | None:
        """Return the files that make up a split: if masks are rasterised, the instances, whether this is done or not.

        Args:
            split: which image list.

        Returns:
            Files that determine the masks, and the images; None if the split has none.
        """
        if self.masks is not None or self._has_masks(split) or not self._instances(split).is_file():
            return super().content_files(split)
        listed = self.lists[split]
        folder = self.root / self._name(split)
        ids = None if listed is None else read_id_list(listed)
        images = (
            sorted(p for p in folder.glob("*") if p.suffix in IMAGE_ENDINGS)
            if ids is None
            else [self.image_path(i) for i in ids]
        )
        return [self._instances(split), *([] if listed is None else [listed])], images

    def _is_listed(self, split: ListSplit) -> bool:
        """Return whether the ids of a split are known without rasterising: a test alone needs no training images."""
        listed = self.lists[split]
        if listed is not None:
            return listed.is_file()
        if self.masks is not None or self._has_masks(split):
            return True
        return self._instances(split).is_file() and is_complete(self._mask_folder(split))

    def _split_of(self, image_id: str) -> ListSplit:
        """Return the split of an image from its official name, else by looking for its file."""
        splits: tuple[ListSplit, ...] = ("train", "val")
        for split in splits:
            if self._name(split) in image_id:
                return split
        return "train" if file_of(self.root / self._name("train"), image_id).is_file() else "val"

    def _name(self, split: ListSplit) -> str:
        return f"{split}{self.year}"

    def _given_masks(self, split: ListSplit) -> Path:
        return self.root / "annotations" / self._name(split)

    def _has_masks(self, split: ListSplit) -> bool:
        """Return whether there are masks below the root; raise if they were made by another rule than requested."""
        if not self._given_masks(split).is_dir():
            return False
        stored = None if self.manifest is None else self.manifest.get("mask_rule")
        if stored is not None and stored != self.mask_rule:
            raise DataError(
                f"The masks in {self._given_masks(split)} were made with mask_rule={stored}, but data.mask_rule="
                f"{self.mask_rule} is asked for. Either use them with data.mask_rule={stored}, or prepare others in "
                f"another folder: fss data prepare coco --root OTHER --year {self.year} --mask-rule {self.mask_rule} "
                "--archives DIR, and give data.root=OTHER."
            )
        return True

    def _instances(self, split: ListSplit) -> Path:
        return self.root / "annotations" / f"instances_{self._name(split)}.json"

    def _mask_folder(self, split: ListSplit) -> Path:
        if split not in self._derived:
            if self.masks is not None:
                self._derived[split] = self.masks
            elif self._has_masks(split):
                self._derived[split] = self._given_masks(split)
            else:
                key = fingerprint([self._instances(split)])
                name = f"{key[:32]}-{rule_version(self.mask_rule)}"
                self._derived[split] = cache_dir("coco_masks", name, self._name(split))
        return self._derived[split]

    def _help(self) -> str:
        return _HELP.format(root=shell(self.root), year=self.year)


def _number(stem: str) -> tuple[int, str]:
    digits = re.search(r"(\d+)$", stem)
    return (int(digits.group(1)) if digits else 0, stem)
