"""Bad inputs on disk: data sets that are incomplete or damaged, and archives."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tests.cli.bad_inputs import SMALL, Case
from tests.data.fabricate import save_mask
from tests.data.fabricate_archives import SBD_NAME, VOC_NAME

Damage = Callable[[Path], None]
VOC, COCO = "data/VOC2012", "data/COCO2014"
MASKS, LISTS = f"{VOC}/SegmentationClassAug", f"{VOC}/ImageSets/FewShot"
SINGLES = "data/shapes/classification"
BEGUN = '{"format": 1, "data": "pascal", "complete": false, "archives": []}'
MASK, INSTANCES = f"{MASKS}/train_0003.png", f"{COCO}/annotations/instances_train2014.json"


def voc(name: str, damage: Damage, *words: str, needs: tuple[str, ...] = ("pascal",)) -> Case:
    """Return a case that trains on a damaged data set in the layout of PASCAL."""
    return Case(name, "train.py", (f"data={needs[0]}", *SMALL), words, needs, damage)


def coco(name: str, damage: Damage, *words: str) -> Case:
    """Return a case that trains on a damaged data set in the layout of COCO."""
    return Case(name, "train.py", ("data=coco", *SMALL), words, ("coco",), damage)


def archived(name: str, damage: Damage, *words: str, data: str = "pascal", more: str = "--unverified") -> Case:
    """Return a case that prepares from damaged archives."""
    command = f"data prepare {data} --root root --archives archives --workers 1 {more}"
    return Case(name, "fss", tuple(command.split()), words, ("archives",), damage, continues=("root",))


def gone(*names: str) -> Damage:
    """Remove files and folders."""

    def damage(home: Path) -> None:
        for name in names:
            path = home / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return damage


def cut(pattern: str, share: float = 0.5) -> Damage:
    """Cut files short."""

    def damage(home: Path) -> None:
        for path in list(home.glob(pattern)):
            data = path.read_bytes()
            path.write_bytes(data[: int(len(data) * share)])

    return damage


def holds(name: str, content: str | bytes) -> Damage:
    """Put something else into a file."""

    def damage(home: Path) -> None:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return damage


def masks(change: Callable[[np.ndarray], np.ndarray], pattern: str = "*.png") -> Damage:
    """Change the class indices of masks."""

    def damage(home: Path) -> None:
        for path in (home / MASKS).glob(pattern):
            save_mask(path, change(np.array(Image.open(path))))

    return damage


def coloured(mode: str) -> Damage:
    """Store a mask in another mode."""

    def damage(home: Path) -> None:
        Image.open(home / MASK).convert("L").convert(mode).save(home / MASK)

    return damage


def twice(home: Path) -> None:
    path = home / LISTS / "train.txt"
    path.write_text(path.read_text() + "train_0003\n")


def stranger(home: Path) -> None:
    path = home / LISTS / "val.txt"
    path.write_text(path.read_text() + "2007_000001\n")


def as_folder(home: Path) -> None:
    (home / LISTS / "train.txt").unlink()
    (home / LISTS / "train.txt").mkdir()


def class_21(mask: np.ndarray) -> np.ndarray:
    mask[0, 0] = 21
    return mask


def instances(change: Callable[[dict[str, Any]], object]) -> Damage:
    """Change what the instances file of COCO says."""

    def damage(home: Path) -> None:
        content = json.loads((home / INSTANCES).read_text())
        change(content)
        (home / INSTANCES).write_text(json.dumps(content))

    return damage


def other_rule(home: Path) -> None:
    manifest = {"format": 1, "data": "coco", "complete": True, "year": 2014, "mask_rule": "first_polygon"}
    manifest |= {"archives": [], "folders": {}, "counts": {}}
    (home / COCO / "fss.json").write_text(json.dumps(manifest))
    for split in ("train", "val"):
        (home / COCO / "annotations" / f"{split}2014").mkdir()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", declared: int = 0) -> Damage:
    """Put a hostile member before the others of VOC's archive."""

    def damage(home: Path) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.size = kind, link, declared
        path = home / "archives" / VOC_NAME
        path.write_bytes(info.tobuf() + path.read_bytes())

    return damage


def in_zip(home: Path) -> None:
    import zipfile

    with zipfile.ZipFile(home / "archives/train2014.zip", "a") as archive:
        archive.writestr("train2014/../../evil.jpg", b"x")


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("I;16", (128, 96)).save(buffer, "PNG")
    return buffer.getvalue()


FOLDERS = (
    voc("nothing prepared: pascal", gone(VOC), "data/VOC2012", f"fss data prepare pascal --root {VOC}"),
    voc("nothing prepared: shapes", gone("data/shapes"), "data/shapes", "fss data shapes --root", needs=("shapes",)),
    coco("nothing prepared: coco", gone(COCO), COCO, f"fss data prepare coco --root {COCO}"),
    voc("root that is a file", lambda h: (gone(VOC)(h), holds(VOC, "x")(h))[0], VOC, "fss data prepare pascal"),
    voc("no photographs", gone(f"{VOC}/JPEGImages"), "JPEGImages", "fss data prepare pascal"),
    voc("no masks", gone(MASKS), "SegmentationClassAug", "fss data prepare pascal"),
    voc("no lists", gone(f"{VOC}/ImageSets"), "train.txt", "fss data prepare pascal"),
    voc("no validation list", gone(f"{LISTS}/val.txt"), "val.txt", "fss data prepare pascal"),
    voc("no class names", gone("data/shapes/classes.txt"), "classes.txt", "fss data shapes", needs=("shapes",)),
    voc("empty file of class names", holds("data/shapes/classes.txt", ""), "0 class names", "1 to 254",
        needs=("shapes",)),
    voc("preparing was interrupted", holds(f"{VOC}/fss.json", BEGUN), "interrupted", "fss data prepare pascal"),
    voc("damaged fss.json", holds(f"{VOC}/fss.json", '{"format": 1, "da'), "fss.json", "Delete it"),
    coco("COCO without photographs", gone(f"{COCO}/val2014"), "val2014", "fss data prepare coco"),
    coco("COCO without annotations", gone(f"{COCO}/annotations"), "instances_train2014.json", "fss data prepare coco"),
)  # fmt: skip
LISTED = (
    voc("empty list", holds(f"{LISTS}/train.txt", "\n"), "train.txt", "one image id per line"),
    voc("list with a duplicate", twice, "train_0003", "more than once", "train.txt"),
    voc("list that is a folder", as_folder, "train.txt", "list"),
    voc("list that is no text", holds(f"{LISTS}/train.txt", b"\xff\xfe\x00"), "train.txt", "one image id per line"),
    voc("list that leads outside", holds(f"{LISTS}/train.txt", "../../secret\n"), "secret.jpg", "missing", "id list"),
    voc("list that names a missing image", stranger, "2007_000001", "missing", "list"),
    voc("photograph that is missing", gone(f"{VOC}/JPEGImages/val_0007.jpg"), "val_0007.jpg", "missing", "list"),
)
FILES = (
    voc("truncated JPEG", cut(f"{VOC}/JPEGImages/train_*.jpg"), "train_", "damaged", "copy it again"),
    Case("truncated JPEG in a loader process", "train.py", ("data=pascal", *SMALL, "workers=1"),
         ("The image", "train_", "damaged", "copy it again"), ("pascal",), cut(f"{VOC}/JPEGImages/train_*.jpg")),
    Case("truncated JPEG in pre-training", "fss",
         ("pretrain", "--data", SINGLES, "--width", "8", "--epochs", "1", "--batch-size", "4", "--out", "w.pth"),
         (f"{SINGLES}/train", "damaged", "copy it again"), ("shapes",), cut(f"{SINGLES}/train/*/*.jpg")),
    voc("empty JPEG", cut(f"{VOC}/JPEGImages/*.jpg", 0), "JPEGImages", "damaged", "copy it again"),
    voc("text instead of a JPEG", lambda h: [p.write_text("x") for p in (h / VOC / "JPEGImages").iterdir()] and None,
        "JPEGImages", "damaged or no image", "copy it again"),
    voc("truncated PNG", cut(MASK), "train_0003.png", "damaged", "copy it again"),
    voc("text instead of a PNG", holds(MASK, "no mask"), "train_0003.png", "damaged", "copy it again"),
    voc("mask with colours", coloured("RGB"), "train_0003.png", "mode RGB", "8-bit grey and palette"),
    voc("mask of 16 bits", holds(MASK, png()), "train_0003.png", "I;16", "8-bit grey and palette"),
    voc("mask of one bit", coloured("1"), "train_0003.png", "mode 1", "8-bit grey and palette"),
    voc("masks of another size", masks(lambda m: np.pad(m, 8), "train_*"), "96 x 128", "112 x 144", "must be equal"),
    voc("class id out of range", masks(class_21, "train_0003*"), "train_0003.png", "[21]", "1..20", "255"),
    voc("all masks empty", masks(np.zeros_like), "fewer than shot + 1", "data.small_classes=drop"),
    voc("class with too few images", masks(lambda m: np.where(m == 3, 0, m).astype(np.uint8)), "bird (0)",
        "shot + 1 = 2", "lower shot"),
)  # fmt: skip
ANNOTATIONS = (
    coco("truncated JSON", cut(INSTANCES), "instances_train2014.json", "damaged", "annotations_trainval2014.zip"),
    coco("no JSON", holds(INSTANCES, "hello"), "instances_train2014.json", "damaged", "annotations_trainval2014.zip"),
    coco("JSON without annotations", instances(lambda c: c.pop("annotations")), "instances_train2014.json",
         "annotations", "annotations_trainval2014.zip"),
    coco("JSON that is a list", holds(INSTANCES, "[1, 2]"), "instances_train2014.json", "no COCO instances file"),
    coco("unknown COCO category", instances(lambda c: c["annotations"][0].update(category_id=12)), "12",
         "instances_train2014.json", "category"),
    coco("broken polygon", instances(lambda c: c["annotations"][0].update(segmentation=[[1.0]])), "cannot be drawn",
         "COCO_train2014_", "annotations_trainval2014.zip"),
    coco("masks of another rule", other_rule, "mask_rule=first_polygon", "data.mask_rule=full", "fss data prepare"),
)  # fmt: skip
PREFIX = "VOCdevkit/VOC2012"
ARCHIVES = (
    archived("missing archive", gone(f"archives/{SBD_NAME}"), SBD_NAME, "archives", "--download"),
    archived("wrong checksum", holds("x", ""), VOC_NAME, "not the official", "--unverified", more=""),
    archived("truncated tar", cut(f"archives/{VOC_NAME}"), VOC_NAME, "damaged", "rm "),
    archived("truncated tgz", cut(f"archives/{SBD_NAME}"), SBD_NAME, "damaged", "rm "),
    archived("truncated zip", cut("archives/train2014.zip"), "train2014.zip", "damaged", "rm ", data="coco"),
    archived("text instead of an archive", holds(f"archives/{VOC_NAME}", "hello"), VOC_NAME, "damaged", "rm "),
    archived("member with ..", member(f"{PREFIX}/../../evil"), "evil", "leads outside", "rm "),
    archived("member with an absolute name", member("/tmp/evil"), "/tmp/evil", "leads outside", "rm "),
    archived("member that is a symlink", member(f"{PREFIX}/l", tarfile.SYMTYPE, "/etc"), "link or a device", "rm "),
    archived("member that is a device", member(f"{PREFIX}/d", tarfile.CHRTYPE), "link or a device", "rm "),
    archived("bomb", member(f"{PREFIX}/zeros", declared=1 << 40), VOC_NAME, "unpack to more than", "rm "),
    archived("zip member with ..", in_zip, "evil", "leads outside", "rm ", data="coco"),
)
