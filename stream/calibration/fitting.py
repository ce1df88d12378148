"""The calibration service as a fitter."""

from __future__ import annotations

from stream.calibration.run import Fitter
from stream.settings import Settings

__all__ = ["service_fitter"]


def service_fitter(settings: Settings) -> Fitter:
    """Return what fits through the service at R_IRT_BASE_URL."""
    raise NotImplementedError
