"""The ``fss`` command, with all its sub-commands."""

from __future__ import annotations

import typer

from fss.cli.backbones import backbones
from fss.cli.convert import convert
from fss.cli.data import app as data_app
from fss.cli.doctor import doctor
from fss.cli.figure import figure
from fss.cli.predict import PairsCommand, predict
from fss.cli.prepare import prepare
from fss.cli.pretrain import pretrain
from fss.cli.programs import PASSED_ON, evaluate, train
from fss.cli.report import report
from fss.cli.strategies import strategies
from fss.cli.sweep import app as sweep_app
from fss.cli.wandb_dashboard import app as wandb_app
from fss.commands import program

app = typer.Typer(
    name="fss",
    help=f"Few-shot segmentation with Singular Value Fine-tuning. Train with: {program()} --help",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich help takes twice as long
    context_settings={"max_content_width": 120},
)
data_app.command()(prepare)
app.add_typer(data_app, name="data")
app.add_typer(sweep_app, name="sweep")
app.add_typer(wandb_app, name="wandb")
app.command(context_settings=PASSED_ON, add_help_option=False)(train)
app.command("eval", context_settings=PASSED_ON, add_help_option=False)(evaluate)
app.command()(pretrain)
app.command()(report)
app.command()(figure)
app.command()(convert)
app.command()(strategies)
app.command()(backbones)
app.command(cls=PairsCommand)(predict)
app.command()(doctor)
