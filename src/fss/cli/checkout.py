"""Make sure that a program of one checkout does not run the code of another."""

from __future__ import annotations

from pathlib import Path

import fss
from fss.errors import FssError


def refuse_mixture(program: str) -> None:
    """Refuse to run where the program lies in a checkout and the package was imported from somewhere else.

    Otherwise the options come from one version and the code from another, and nobody is told.

    Args:
        program: file of the program, ``train.py`` or ``eval.py``.

    Raises:
        FssError: if the code is not that of the program's checkout.
    """
    script = Path(program).resolve()
    beside, imported = script.parent / "src" / "fss", Path(fss.__file__).resolve().parent
    if beside.is_dir() and beside.resolve() != imported:
        raise FssError(
            f"{script} would run the code of {imported}, which is another copy of fss, with the options of "
            f"{script.parent / 'conf'}. Use this checkout's own environment: {script.parent / '.venv/bin/python'} "
            f"{script.name} (make setup makes it), or install this checkout: pip install -e {script.parent}"
        )
