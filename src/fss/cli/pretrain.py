"""``fss pretrain``: pre-train a small backbone by classification."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from fss.cli.friendly import friendly


@friendly
def pretrain(
    data: Annotated[Path, typer.Option(help="Folder with train/CLASS/*.jpg and val/CLASS/*.jpg.")] = Path(
        "data/shapes/classification"
    ),
    out: Annotated[Path, typer.Option(help="Output file of the backbone's weights.")] = Path(
        "weights/shapes_resnet18.pth"
    ),
    depth: Annotated[int, typer.Option(help="ResNet depth: 18 or 50.")] = 18,
    width: Annotated[int, typer.Option(help="Channels of the first stage.")] = 16,
    epochs: Annotated[int, typer.Option(help="Training epochs.", min=1)] = 5,
    batch_size: Annotated[int, typer.Option(help="Images per step.", min=2)] = 64,
    seed: Annotated[int, typer.Option(help="Seed of initialisation and image order.", min=0)] = 0,
) -> None:
    """Pre-train a small backbone by classifying images of single objects, in place of ImageNet weights."""
    settings: dict[str, Any] = {
        "depth": depth,
        "width": width,
        "epochs": epochs,
        "batch_size": batch_size,
        "seed": seed,
    }
    settings["data"] = _fingerprint(data)
    if _is_up_to_date(out, settings):
        typer.echo(f"{out} is there already, pre-trained with these settings on these images.")
        return
    import pytorch_lightning as pl
    import torch

    from fss.backbones.resnet import ResNet
    from fss.data.classification_dataset import classification_loader
    from fss.files import atomic, write_json
    from fss.lit.callbacks.divergence import DivergenceGuard
    from fss.lit.classification import Classifier
    from fss.runs.known_warnings import hide_known_warnings

    hide_known_warnings()
    pl.seed_everything(seed, verbose=False)
    images = ResNet.input
    train, classes = classification_loader(data, "train", batch_size, workers=1, seed=seed, images=images)
    val, _ = classification_loader(data, "val", 256, workers=0, seed=seed, images=images)
    model = Classifier(ResNet(depth, "torchvision", "torchvision", width), len(classes))
    trainer = pl.Trainer(
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        check_val_every_n_epoch=epochs,
        callbacks=[DivergenceGuard()],
    )
    trainer.fit(model, train, val)
    content = io.BytesIO()
    torch.save(
        {"state_dict": model.backbone.state_dict()}, content
    )  # in memory, as torch's writer hides the reason when the disk is full
    with atomic(out) as file:
        file.write(content.getbuffer())
    write_json(_settings_file(out), settings)
    typer.echo(f"{out}: {len(classes)} classes, accuracy {100 * model.accuracy:.1f} % on held-out images")


def _settings_file(out: Path) -> Path:
    return out.with_suffix(".json")


def _is_up_to_date(out: Path, settings: dict[str, Any]) -> bool:
    """Return whether the weights were made with exactly these settings."""
    try:
        return out.is_file() and json.loads(_settings_file(out).read_text()) == settings
    except (OSError, ValueError):
        return False


def _fingerprint(data: Path) -> str:
    """Hash the names and sizes of the images."""
    files = sorted((str(p.relative_to(data)), p.stat().st_size) for p in data.rglob("*.jpg"))
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()
