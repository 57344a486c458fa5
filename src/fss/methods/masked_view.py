"""Where heads of PFENet's kind mask their supports."""

from __future__ import annotations

from typing import Literal, get_args

from fss.errors import FssError

MaskedView = Literal["masked_before_stage4", "masked_image"]
"""Before stage 4, as in all releases, or in the image, for backbones whose stages cannot be run one by one."""


def masked_view(view: str) -> MaskedView:
    """Validate a view of the supports.

    Args:
        view: name of the view.

    Returns:
        The same name.

    Raises:
        FssError: if it is none of :data:`MaskedView`.
    """
    for allowed in get_args(MaskedView):
        if view == allowed:
            found: MaskedView = allowed
            return found
    raise FssError(f"method.support_view={view}: choose {' or '.join(get_args(MaskedView))}")
