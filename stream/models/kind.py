"""What makes a model kind: where it is fitted, on what, when, and what is checked of its answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import asyncpg

from schemas.models import ModelAnswer
from stream.errors import CalibrationResponseError
from stream.settings import Settings

__all__ = ["Dataset", "ModelKind", "check_names", "quantiles"]


@dataclass(frozen=True, slots=True)
class Dataset:
    """What a fit is asked of.

    Attributes
    ----------
    body
        The request's fields beside ``run_id``.
    learners
        Learners in it: an answer may speak of no others.
    about
        Figures that say what entered and what was left out, for the result.
    """

    body: dict[str, Any]
    learners: frozenset[str] = frozenset()
    about: dict[str, Any] = field(default_factory=dict)


BuildDataset = Callable[[asyncpg.Connection, Settings, date], Awaitable[Dataset]]
"""Reads what happened before a day (UTC) from the tables.

Equal rows give an equal dataset, to the last bit. Raises `stream.errors.EstimationError` where
there is nothing to fit.
"""


def _nothing(_answer: Any) -> dict[str, Any]:
    return {}


def _accept(_answer: Any, _dataset: Dataset) -> None:
    return


@dataclass(frozen=True, slots=True)
class ModelKind:
    """A kind of model.

    Attributes
    ----------
    name
        In requests, results and on the command line.
    url
        Field of `Settings` with the service's address; the kind is off while that is empty.
    schedule
        Field of `Settings` with the weekly time.
    route
        Of the service.
    dataset
        Reads what is fitted.
    answer
        Record of the service's answer.
    learners
        Name of the answer's list with one entry a learner; "" without one.
    check
        Raises `stream.errors.CalibrationResponseError` for an answer that the record's types let
        pass but that must not be used.
    summary
        The learners' values in a few figures.
    """

    name: str
    url: str
    schedule: str
    route: str
    dataset: BuildDataset
    answer: type[ModelAnswer]
    learners: str = ""
    check: Callable[[Any, Dataset], None] = _accept
    summary: Callable[[Any], dict[str, Any]] = _nothing

    @property
    def setting(self) -> str:
        """Name of the setting with the service's address."""
        name: str = Settings.__dataclass_fields__[self.url].metadata["env"]
        return name

    def base_url(self, settings: Settings) -> str:
        """Return the service's address, "" while the kind is off."""
        url: str = getattr(settings, self.url)
        return url


def check_names(what: str, returned: Iterable[str], asked: Iterable[str]) -> None:
    """Check that an answer speaks of nothing but what was asked, and of nothing twice.

    Raises
    ------
    CalibrationResponseError
        It does; the message names one.
    """
    names, known = list(returned), set(asked)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise CalibrationResponseError(
            f"the service returned {len(unknown)} {what}s that were not in the request, "
            f"{unknown[0]!r} for one"
        )
    if len(set(names)) != len(names):
        raise CalibrationResponseError(f"the service returned a {what} twice")


def quantiles(values: Iterable[float]) -> dict[str, float]:
    """Return ``n``, ``mean`` and the 5, 25, 50, 75 and 95 % quantiles of some values.

    Examples
    --------
    >>> quantiles([1.0, 2.0, 3.0])["q50"]
    2.0
    >>> quantiles([])
    {'n': 0}
    """
    ordered = sorted(values)
    n = len(ordered)
    if not n:
        return {"n": 0}
    found: dict[str, float] = {"n": n, "mean": sum(ordered) / n}
    for percent in (5, 25, 50, 75, 95):
        place = percent / 100 * (n - 1)
        below = int(place)
        above = min(below + 1, n - 1)
        found[f"q{percent}"] = ordered[below] + (place - below) * (ordered[above] - ordered[below])
    return found
