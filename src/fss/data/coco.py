"""COCO-20i: COCO 2014 with 80 classes in four folds of twenty."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from fss.data.cache import cache_dir, fingerprint
from fss.data.coco_masks import RULE, is_complete, rasterise
from fss.data.errors import DataError
from fss.data.folds import COCO_CLASSES, CocoScheme, FoldClasses, coco_fold
from fss.data.source import ListSplit, PictureFiles, existing_folder, read_id_list

_FOLDERS: dict[ListSplit, str] = {"train": "train2014", "val": "val2014"}

_HELP = (
    "COCO-20i is expected below data.root={root} as train2014/ID.jpg, val2014/ID.jpg and either "
    "annotations/instances_train2014.json and instances_val2014.json or index masks "
    "annotations/train2014/ID.png and val2014/ID.png. Point data.root to such a folder."
)


class CocoSource(PictureFiles):
    """COCO 2014 photographs with masks of contiguous class ids 1..80, ascending by COCO category id.

        ROOT/train2014/ID.jpg                           photographs, also val2014
        ROOT/annotations/train2014/ID.png               index masks, used if the folder is there
        ROOT/annotations/instances_train2014.json       else masks are rasterised from it, once, into the cache

    Picture ids are file names without ending (``COCO_val2014_000000000042`` in the official files). The list of
    a split is its pictures that have annotations, by ascending COCO id, unless a list is given.

    Args:
        root: folder of the data set; it is only read.
        scheme: which classes a fold holds out, ``fwb`` (as PFENet, BAM and SVF) or ``panet``.
        train_list: file of training ids.
        val_list: file of validation ids.
        masks: one folder of index masks ID.png for both splits, instead of those below root.
        progress: show a bar while masks are rasterised.

    Raises:
        DataError: if the scheme does not exist.
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
    ) -> None:
        if scheme not in get_args(CocoScheme):
            coco_fold(0, scheme)  # raises
        self.root = Path(root).expanduser()
        self.scheme: CocoScheme = scheme
        self.masks = None if masks is None else Path(masks).expanduser()
        self.progress = progress
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
            DataError: if there is no such fold.
        """
        return coco_fold(fold, self.scheme)

    def check(self, split: ListSplit, pictures: bool = True) -> None:
        """Look for the folders and lists of a split.

        Args:
            split: which picture list.
            pictures: whether the photographs are needed too.

        Raises:
            DataError: naming what is missing and how to get it.
        """
        listed = self.lists[split]
        if listed is not None and not listed.is_file():
            raise DataError(f"There is no {split} list {listed}. Give a text file with one picture id per line.")
        if self.masks is not None:
            existing_folder(self.masks, "It should hold the index masks ID.png.")
        else:
            existing_folder(self.root, self._help())
            if not (self._given_masks(split).is_dir() or self._instances(split).is_file()):
                raise DataError(
                    f"There is neither {self._given_masks(split)} nor {self._instances(split)}. {self._help()}"
                )
        if pictures:
            existing_folder(self.root / _FOLDERS[split], self._help())

    def prepare(self, split: ListSplit) -> None:
        """Rasterise the masks of a split unless they are there.

        Args:
            split: which picture list.

        Raises:
            DataError: if the instances are missing or damaged, or the cache cannot be written.
        """
        if self.masks is None and not self._given_masks(split).is_dir():
            folder = self._mask_folder(split)
            if not is_complete(folder):
                rasterise(self._instances(split), folder, self.progress)

    def ids(self, split: ListSplit) -> list[str]:
        """Return picture ids in list order.

        Args:
            split: which picture list.

        Raises:
            DataError: if there is no mask, or a given list is missing, empty or holds an id twice.
        """
        listed = self.lists[split]
        if listed is not None:
            return read_id_list(listed)
        self.prepare(split)
        folder = self._mask_folder(split)
        found = [path.stem for path in folder.glob("*.png")]
        if not found:
            raise DataError(f"There is no mask *.png in {folder}. {self._help()}")
        return sorted(found, key=_number)

    def image_path(self, image_id: str) -> Path:
        """Return the file of a photograph.

        Args:
            image_id: picture id.
        """
        return self.root / _FOLDERS[self._split_of(image_id)] / f"{image_id}.jpg"

    def mask_path(self, image_id: str) -> Path:
        """Return the file of a mask.

        Args:
            image_id: picture id.
        """
        folder = self.masks if self.masks is not None else self._mask_folder(self._split_of(image_id))
        return folder / f"{image_id}.png"

    def _split_of(self, image_id: str) -> ListSplit:
        """Tell the folder of a picture from its official name, else by looking for it."""
        for split, folder in _FOLDERS.items():
            if folder in image_id:
                return split
        return "train" if (self.root / _FOLDERS["train"] / f"{image_id}.jpg").is_file() else "val"

    def _given_masks(self, split: ListSplit) -> Path:
        return self.root / "annotations" / _FOLDERS[split]

    def _instances(self, split: ListSplit) -> Path:
        return self.root / "annotations" / f"instances_{_FOLDERS[split]}.json"

    def _mask_folder(self, split: ListSplit) -> Path:
        if split not in self._derived:
            given = self.masks or self._given_masks(split)
            if not given.is_dir():
                key = fingerprint([self._instances(split)])
                given = cache_dir("coco_masks", f"{key[:32]}-{RULE}", _FOLDERS[split])
            self._derived[split] = given
        return self._derived[split]

    def _help(self) -> str:
        return _HELP.format(root=self.root)


def _number(stem: str) -> tuple[int, str]:
    digits = re.search(r"(\d+)$", stem)
    return (int(digits.group(1)) if digits else 0, stem)
