"""Which image a plan is for."""

from __future__ import annotations

from tilestream.errors import ConfigError
from tilestream.kernels.checks import need_kind
from tilestream.pyramid.pyramid import OPEN_FIRST, Pyramid


def image_key(pyr: Pyramid) -> str:
    """Return the identity of the 2-D image that a plan is for.

    Parameters
    ----------
    pyr : Pyramid
        The image.

    Returns
    -------
    str
        Fingerprint and the index chosen on each extra axis.
    """
    chosen = ",".join(f"{axis}={index}" for axis, index in sorted(pyr.info.selection.items()))
    return f"{pyr.fingerprint}#{chosen}"


def require_plan(operation: str, pyr: Pyramid, plan: object) -> None:
    """Refuse a plan of another image, whose tiles would show other places.

    Parameters
    ----------
    operation : str
        Whose plan it is, for errors.
    pyr : Pyramid
        The image.
    plan : object
        What is to be a plan; its `image` says of which, see `image_key`.

    Raises
    ------
    ConfigError
        When it is none, or one of another image.
    """
    need_kind(operation, "pyramid", pyr, Pyramid, do=OPEN_FIRST)
    image = getattr(plan, "image", None)
    if image != image_key(pyr):
        raise ConfigError.of(
            "`plan`",
            got="none of an image" if image is None else "one of another image, or of other choices of it",
            expected="a plan of this image",
            do="Make it anew: `ts.plan_tiles(pyramid)` or `ts.plan_tokens(pyramid, budget=…)`.",
        )
