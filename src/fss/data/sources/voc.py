"""Reader of the VOC layout, shared by PASCAL-5i and the shapes data set."""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from fss.commands import shell
from fss.data.reading.image_files import MASK_ENDINGS, file_of, image_endings
from fss.data.sources.base import Facts, ImageFiles, ListSplit, check_photographs, existing_folder
from fss.data.sources.folds import FoldClasses, block_fold
from fss.data.sources.id_lists import read_id_list
from fss.data.sources.manifest import Manifest, check_complete, list_hash, manifest_facts
from fss.errors import DataError


class VocSource(ImageFiles):
    """A data set in the layout of PASCAL VOC.

        ROOT/JPEGImages/ID.jpg              images
        ROOT/SegmentationClassAug/ID.png    masks of class indices, 255 ignored
        ROOT/ImageSets/FewShot/train.txt    image ids, also val.txt
        ROOT/classes.txt                    one class name per line, in the order of the ids 1, 2, ...
        ROOT/fss.json                       how it was made, if ``fss data prepare`` did

    Fold i holds out the i-th quarter of the classes.

    Args:
        root: folder of the data set.
        train_list: another file of training ids.
        val_list: another file of validation ids.
        masks: another folder of masks.
    """

    name: str = "voc"
    how_to_get: ClassVar[str] = "Expected below {root}: JPEGImages, SegmentationClassAug, ImageSets/FewShot."

    def __init__(
        self,
        root: str | Path,
        train_list: str | Path | None = None,
        val_list: str | Path | None = None,
        masks: str | Path | None = None,
    ) -> None:
        self.root = Path(root).expanduser()
        lists = self.root / "ImageSets" / "FewShot"
        self.lists: dict[ListSplit, Path] = {
            "train": lists / "train.txt" if train_list is None else Path(train_list).expanduser(),
            "val": lists / "val.txt" if val_list is None else Path(val_list).expanduser(),
        }
        self.images = self.root / "JPEGImages"
        self.masks = self.root / "SegmentationClassAug" if masks is None else Path(masks).expanduser()

    @cached_property
    def manifest(self) -> Manifest | None:
        """Manifest written by ``fss data prepare``, or None.

        Raises:
            DataError: if the preparation was interrupted.
        """
        return check_complete(self.root)

    @cached_property
    def class_names(self) -> dict[int, str]:
        """Class id -> name, ascending.

        Raises:
            DataError: if ``classes.txt`` is missing or empty, names a class twice, or names the background.
        """
        existing_folder(self.root, self._help())
        path = self.root / "classes.txt"
        try:
            names = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"Cannot read the class names in {path}. {self._help()}") from error
        if not 0 < len(names) < 255:
            raise DataError(f"{path} holds {len(names)} class names; allowed are 1 to 254, one per line.")
        if names[0].strip("_").casefold() in ("background", "bg"):
            raise DataError(f"{path} names the background first; ids start at 1 without it. Remove that line.")
        if len(set(names)) < len(names):
            twice = Counter(names).most_common(1)[0][0]
            raise DataError(f"{path} names {twice} more than once. Give every class a name of its own.")
        return dict(enumerate(names, start=1))

    def fold(self, fold: int) -> FoldClasses:
        """Return base and novel class ids; the i-th quarter of the classes is novel.

        Args:
            fold: 0..3.

        Raises:
            DataError: if there is no such fold.
        """
        return block_fold(self.class_names, fold)

    def check(self, split: ListSplit, images: bool = True) -> None:
        """Check that the folders and the list of a split exist.

        Args:
            split: which image list.
            images: whether the images are needed too.

        Raises:
            DataError: if something is missing; the message says how to get it.
        """
        existing_folder(self.masks, self._help())
        _ = self.manifest
        if images:
            existing_folder(self.images, self._help())
        if not self.lists[split].is_file():
            raise DataError(f"There is no {split} list {self.lists[split]}. {self._help()}")
        _ = self.class_names
        if images:
            check_photographs(self, self.ids(split), self.images)

    def prepare(self, split: ListSplit) -> None:
        """Do nothing: the masks are part of the data set.

        Args:
            split: which image list.
        """

    def ids(self, split: ListSplit) -> list[str]:
        """Return image ids in list order.

        Args:
            split: which image list.

        Raises:
            DataError: if the list is missing, empty or holds an id twice.
        """
        return read_id_list(self.lists[split], self.masks.name if self._has_own_masks else None)

    def facts(self) -> Facts:
        """Return lengths and hashes of the lists, and the origin of the masks."""
        facts: Facts = {"name": self.name}
        for split, path in self.lists.items():
            if path.is_file():  # a test alone needs no training list
                ids = self.ids(split)
                facts |= {f"{split}_images": len(ids), f"{split}_list": list_hash(ids)}
        return facts | manifest_facts(self.manifest if self._has_own_masks else None)

    def image_path(self, image_id: str) -> Path:
        """Return the path of an image.

        Args:
            image_id: image id.
        """
        return file_of(self.images, image_id, image_endings(self.images, self.masks))

    def mask_path(self, image_id: str) -> Path:
        """Return the path of a mask.

        Args:
            image_id: image id.
        """
        return file_of(self.masks, image_id, MASK_ENDINGS)

    @property
    def _has_own_masks(self) -> bool:
        return self.masks == self.root / "SegmentationClassAug"

    def _help(self) -> str:
        return self.how_to_get.format(root=shell(self.root))
