"""The version that every stored format carries, checked where it is read."""

from __future__ import annotations

from modelyard.core.errors import ModelyardError


def check_format(
    found: object, known: int, what: str, error: type[ModelyardError], *, key: str = "format"
) -> None:
    """Raises `error`, which says to upgrade, unless `what` was written in the version that is known here.

    >>> check_format(2, 1, "the bundle", ModelyardError)
    Traceback (most recent call last):
    modelyard.core.errors.ModelyardError: the bundle has a format that is not known: got 2; the rule is: format 1; upgrade modelyard where it is read
    """  # noqa: E501
    if found != known:
        raise error(
            f"{what} has a {key} that is not known",
            value=found,
            rule=f"{key} {known}",
            fix="upgrade modelyard where it is read",
        )
