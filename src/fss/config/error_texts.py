"""Words for mistakes that libraries and the system report: what was given, what is allowed, what to type next."""

from __future__ import annotations

import difflib
import errno
import os
import re
import sys
from pathlib import Path

from fss.commands import again, program
from fss.errors import FssError, first_line

_HYDRA_ERRORS = ("hydra.errors.HydraException", "omegaconf.errors.OmegaConfBaseException")
_DISK_ERRORS = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST,
}  # fmt: skip


def of_hydra(error: BaseException) -> bool:
    """Tell whether Hydra complains, by name: a program that has not imported Hydra meets none of its errors.

    Args:
        error: what was caught.
    """
    kinds = {f"{kind.__module__}.{kind.__name__}" for kind in type(error).__mro__}
    return not kinds.isdisjoint(_HYDRA_ERRORS)


def hydra_text(error: BaseException) -> str:
    """Describe an option that Hydra refuses.

    Args:
        error: Hydra's or OmegaConf's.

    Returns:
        Its text, the nearest keys where a key is unknown, and the command that lists all.
    """
    name = Path(sys.argv[0]).stem
    lines = str(error).strip().split("\nConfig search path")[0].splitlines()
    text = _choices_in_one_line("\n".join(line for line in lines if not line.startswith("See https://hydra.cc")))
    if type(error).__name__ == "OverrideParseException":
        given = getattr(error, "override", None)
        text = (
            f"{'' if given is None else f'{given}: '}{text}\nOptions are written key=value, as fold=2, and those with "
        )
        text += "brackets in quotes, as 'finetune.stages=[3,4]'."
    else:
        text += _known_keys(error)
    return f"{text}\nAll options: {program(name if name in ('train', 'eval') else 'train')} --help"


def _choices_in_one_line(text: str) -> str:
    """Rewrite Hydra's list of a group's files, a line each, without those that others build on."""
    head, mark, rest = text.partition("Available options in ")
    if not mark:
        return text
    name, *choices = rest.split("\n\t")
    return f"{head}{mark}{name} {', '.join(c.strip() for c in choices if not c.strip().startswith('_'))}"


def _known_keys(error: BaseException) -> str:
    """Return a line with the keys that exist beside an unknown one; empty for other errors."""
    while error.__cause__ is not None:
        error = error.__cause__
    node, key = getattr(error, "parent_node", None), str(getattr(error, "key", ""))
    if node is None or not hasattr(node, "keys"):
        return ""
    known = [str(k) for k in node if not str(k).startswith("_") and k != "hydra"]
    near = difflib.get_close_matches(key, known, 1)
    return (f"\nDo you mean {near[0]}?" if near else "") + f"\nKnown here: {', '.join(sorted(known))}"


def own_words(error: BaseException) -> str:
    """Return the text of a user's error without the traceback that a loader process puts around it.

    Args:
        error: an error of ours, maybe raised again by torch.
    """
    text = str(error)
    if not text.startswith("Caught "):
        return text
    *_, last = re.split(r"^fss\.[\w.]+: ", text, flags=re.MULTILINE)
    return last


def is_of_disk(error: BaseException) -> bool:
    """Tell whether the system refuses to write: no room, no permission, a file where a folder is needed.

    Args:
        error: what was caught.
    """
    return isinstance(error, OSError) and error.errno in _DISK_ERRORS


def disk_text(error: BaseException) -> str:
    """Describe a file that cannot be written.

    Args:
        error: an :class:`OSError`.
    """
    assert isinstance(error, OSError)
    place = os.fspath(error.filename) if isinstance(error.filename, str | Path) else "a file"
    return (
        f"Cannot write {place}: {error.strerror or error}. Make room, or give a folder that is writable (runs go to "
        "multirun/, derived files to $FSS_CACHE, by default ~/.cache/fss), and type the same command again. "
        "fss doctor shows both."
    )


def lost_process_text(error: BaseException) -> str | None:
    """Describe the end of a process that a run needs: a loader, or one of several that train together.

    Args:
        error: what torch raised.

    Returns:
        One paragraph, or None for other errors.
    """
    text = str(error)
    continues = f"The same command continues at the last checkpoint: {again()}"
    if type(error).__name__ in ("TerminatedWorkerError", "BrokenProcessPool"):
        return (
            f"A process of this sweep has ended without a word ({first_line(error)}), and the others with it. Often "
            "the system kills processes where memory ends: run fewer at once, as with hydra.launcher.n_jobs=2. "
            f"{continues}"
        )
    if isinstance(error, RuntimeError) and "DataLoader worker" in text:
        shared = "bus error" in text.lower() or "shared memory" in text
        cause_of_it = (
            "/dev/shm was full: give fewer workers, or more shared memory (docker run --shm-size=8g)"
            if shared
            else "the system kills processes where memory ends: give fewer workers, or workers=0"
        )
        return f"A loader process ended without a word ({text.splitlines()[0]}). Often {cause_of_it}. {continues}"
    lost = ("Connection closed by peer", "Connection reset by peer", "NCCL communicator was aborted", "Broken pipe")
    if isinstance(error, RuntimeError) and any(words in text for words in lost):
        return f"Another process of this run has ended ({text.splitlines()[0]}); its own log says why. {continues}"
    return None


def explained(error: Exception) -> str | None:
    """Put a user's mistake into words.

    Args:
        error: what a program ended with.

    Returns:
        One paragraph, or None for a defect.
    """
    known = cause(error)
    if known is not None:
        return own_words(known)
    if of_hydra(error):
        return hydra_text(error)
    return disk_text(error) if is_of_disk(error) else lost_process_text(error)


def cause(error: BaseException | None) -> FssError | None:
    """Find the user's error that libraries may have wrapped.

    Args:
        error: what was caught.

    Returns:
        The :class:`FssError` in its chain, or None.
    """
    while error is not None:
        if isinstance(error, FssError):
            return error
        error = error.__cause__ or error.__context__
    return None
