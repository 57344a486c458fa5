"""Weights of timm's networks: from the Hugging Face hub or its cache, and from files, never running code in them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import get_pretrained_cfg
from torch import Tensor

from fss.backbones.weights import WeightsError, read_state_dict
from fss.errors import first_line

HUB = ("hub", "imagenet")
"""What ``backbone.weights`` calls the weights that timm publishes for a name."""

_FILES = ("model.safetensors", "pytorch_model.bin")


def fetch(model: str) -> Path:
    """Return the file of the published weights of a network, from the hub's cache, or else downloaded into it.

    Args:
        model: name with tag, as ``convnext_tiny.fb_in1k``.

    Raises:
        WeightsError: if there is none, if it cannot be downloaded, or if its licence must be accepted first.
    """
    repository, wanted = _source(model)
    for local in (True, False):
        for file in wanted:
            try:
                return Path(hf_hub_download(repository, file, local_files_only=local))
            except GatedRepoError as error:
                raise WeightsError(
                    f"The weights of {model} are gated: accept their licence at https://huggingface.co/{repository}, "
                    f"then log in with hf auth login, and start again. Or {_by_hand(repository, wanted[0])}"
                ) from error
            except LocalEntryNotFoundError as error:
                if not local:
                    raise _unreachable(model, repository, wanted[0], error) from error
            except EntryNotFoundError:
                continue
            except (HfHubHTTPError, OSError) as error:
                raise _unreachable(model, repository, wanted[0], error) from error
    raise WeightsError(
        f"https://huggingface.co/{repository} holds none of {', '.join(wanted)}. Give a file: "
        "backbone.weights=/path/to/file, or start at random: backbone.weights=none"
    )


def _source(model: str) -> tuple[str, tuple[str, ...]]:
    """Return the repository of the published weights, and the names that their file may have."""
    config = get_pretrained_cfg(model)
    repository = getattr(config, "hf_hub_id", None)
    if not repository:
        address = getattr(config, "url", None)
        raise WeightsError(
            f"timm publishes no weights of {model} on the hub"
            + (f": fetch {address} and give it: backbone.weights=/path/to/file, or " if address else ": ")
            + "start at random: backbone.weights=none. Names with weights: python -c 'import timm; "
            "print(*timm.list_pretrained())'"
        )
    file = getattr(config, "hf_hub_filename", None)
    return str(repository), (str(file),) if file else _FILES


def _unreachable(model: str, repository: str, file: str, error: Exception) -> WeightsError:
    return WeightsError(
        f"The weights of {model} are not in the cache and could not be downloaded: {first_line(error)} On a machine "
        f"with a connection, {_by_hand(repository, file)} Or start at random: backbone.weights=none"
    )


def _by_hand(repository: str, file: str) -> str:
    folder = f"weights/{repository.rpartition('/')[2]}"
    return (
        f"fetch them by hand: hf download {repository} {file} --local-dir {folder}, and give the file: "
        f"backbone.weights={folder}/{file}."
    )


def read(file: Path) -> dict[str, Tensor]:
    """Read a weight file without running code in it.

    Args:
        file: ``.safetensors``, or what ``torch.save`` wrote.

    Returns:
        name -> tensor.

    Raises:
        WeightsError: if it is damaged or holds anything but tensors.
    """
    if file.suffix != ".safetensors":
        return read_state_dict(file)
    try:
        state: dict[str, Tensor] = load_file(file)
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{file} is no readable weight file: {first_line(error)}. Fetch it again, give another file with "
            "backbone.weights=, or start at random: backbone.weights=none"
        ) from error
    return state


def sha256(file: Path) -> str:
    """Return the SHA-256 of a file, 64 hexadecimal digits.

    Args:
        file: the file.
    """
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
