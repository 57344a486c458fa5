"""Table of pixel areas, image x class, measured on the masks in parallel and cached by content."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track

from fss.data.reading.derived_files import THREADS, cache_dir, fingerprint, write_atomic
from fss.data.reading.masks import mask_histogram
from fss.data.sources.base import ListSplit, SegmentationSource, mask_paths
from fss.errors import DataError

IGNORE = 255  # a copy of fss.types.IGNORE, whose import would load torch

_VERSION = 1  # of the cache file
_CHUNK = 32  # masks per thread task


@dataclass(frozen=True)
class AreaTable:
    """Pixel area of each class in every image of a list.

    Attributes:
        ids: image ids in list order, length N.
        class_ids: class ids of the columns, ascending, length M.
        areas: pixels, (N, M), int64.
    """

    ids: tuple[str, ...]
    class_ids: tuple[int, ...]
    areas: npt.NDArray[np.int64]

    def columns(self, class_ids: Sequence[int]) -> npt.NDArray[np.int64]:
        """Return the areas of some classes, (N, len(class_ids)).

        Args:
            class_ids: some of :attr:`class_ids`.
        """
        column_of = {c: k for k, c in enumerate(self.class_ids)}
        return self.areas[:, [column_of[c] for c in class_ids]]


def area_table(source: SegmentationSource, split: ListSplit, progress: bool = True) -> AreaTable:
    """Return the area table of an image list, from the cache if no mask has changed.

    Args:
        source: the data set.
        split: which image list.
        progress: show a progress bar while masks are read.

    Raises:
        DataError: if masks are missing, damaged or hold values that are not class ids.
    """
    ids = tuple(source.ids(split))
    files = mask_paths(source, ids)
    class_ids = tuple(sorted(source.class_names))
    key = fingerprint(files)
    path = cache_dir("index", f"{key}-{len(class_ids)}-v{_VERSION}.npz")
    areas = _load(path, (len(ids), len(class_ids)))
    if areas is None:
        areas = _measure(files, class_ids, progress, f"Index of {source.name} {split}")
        buffer = io.BytesIO()
        np.savez_compressed(buffer, areas=areas)
        write_atomic(path, buffer.getvalue())
    return AreaTable(ids, class_ids, areas)


def _load(path: Path, shape: tuple[int, int]) -> npt.NDArray[np.int64] | None:
    try:
        with np.load(path, allow_pickle=False) as stored:
            areas = stored["areas"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return areas if areas.shape == shape and areas.dtype == np.int64 else None


def _measure(files: Sequence[Path], class_ids: Sequence[int], progress: bool, title: str) -> npt.NDArray[np.int64]:
    areas, black_and_white = np.zeros((len(files), len(class_ids)), dtype=np.int64), False
    chunks = [files[k : k + _CHUNK] for k in range(0, len(files), _CHUNK)]
    console = Console(stderr=True)
    with ThreadPoolExecutor(THREADS) as pool:
        done = track(pool.map(_histograms, chunks), title, len(chunks), console=console, disable=not progress)
        try:
            for k, counts in enumerate(done):
                _check_values(counts, chunks[k], class_ids)
                black_and_white = black_and_white or bool(counts[:, IGNORE].any())
                areas[k * _CHUNK : k * _CHUNK + len(counts)] = counts[:, list(class_ids)]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    if not areas.any() and black_and_white:
        raise DataError(
            f"All masks hold 0 and {IGNORE} alone, first {files[0]}: black and white images. Masks of a data set hold "
            f"class ids {class_ids[0]}..{class_ids[-1]}, and {IGNORE} only on pixels to ignore. Convert them to class "
            "ids."
        )
    return areas


def _histograms(files: Sequence[Path]) -> npt.NDArray[np.int64]:
    return np.array([mask_histogram(file) for file in files], dtype=np.int64)


def _check_values(counts: npt.NDArray[np.int64], files: Sequence[Path], class_ids: Sequence[int]) -> None:
    invalid = counts > 0
    invalid[:, [0, IGNORE, *class_ids]] = False
    if invalid.any():
        row = int(invalid.any(axis=1).argmax())
        raise DataError(
            f"The mask {files[row]} holds the values {np.flatnonzero(invalid[row])[:8].tolist()}; allowed are 0, the "
            f"class ids {class_ids[0]}..{class_ids[-1]} and 255. It belongs to another data set, or holds colours."
        )
