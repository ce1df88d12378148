"""The client of the calibration service."""

from __future__ import annotations

import asyncio
import logging
from typing import TypeVar

import msgspec

from stream.calibration.contract import (
    AbilityRecord,
    CalibrateRequest,
    CalibrateResponse,
    Health,
    ObservationColumns,
    ScoreRequest,
    ScoreResponse,
    check_abilities,
    check_calibration,
)
from stream.errors import CalibrationError
from stream.service_client import ServiceClient

__all__ = ["RIrtClient"]

logger = logging.getLogger(__name__)

R = TypeVar("R")


class RIrtClient(ServiceClient):
    """Speaks the contract of `stream.calibration.contract`; parameters as `ServiceClient`."""

    service = "calibration service"
    _takes_columns: bool | None = None

    async def calibrate(self, request: CalibrateRequest) -> CalibrateResponse:
        """Have a model fitted.

        Parameters
        ----------
        request
            Observations as columns are sent as rows to a service that knows no columns.

        Returns
        -------
        CalibrateResponse
            Checked: finite, and about nothing but the request's items and learners.

        Raises
        ------
        CalibrationUnavailableError
            Every try failed for a reason that may pass.
        CalibrationRefusedError
            The service refused the request.
        CalibrationResponseError
            The answer cannot be used.
        """
        items, learners = _names(request.observations)
        sent = await self._suited(request)
        response = await self.post("/irt/calibrate", sent, CalibrateResponse)
        await asyncio.to_thread(check_calibration, response, items, learners)
        return response

    async def score(self, request: ScoreRequest) -> list[AbilityRecord]:
        """Have learners scored under known item parameters.

        Raises
        ------
        CalibrationError
            As `calibrate`.
        """
        _, learners = _names(request.observations)
        sent = await self._suited(request)
        response = await self.post("/irt/score", sent, ScoreResponse)
        await asyncio.to_thread(check_abilities, response.abilities, learners)
        return response.abilities

    async def health(self) -> Health:
        """Ask for the service's health, once, without retries.

        Raises
        ------
        CalibrationError
            It does not answer, or not with 200.
        """
        response = await self.send("GET", "/healthz")
        try:
            return msgspec.json.decode(response.content, type=Health)
        except msgspec.DecodeError:
            return Health()  # any 200 is healthy; an unknown body only promises rows

    async def _suited(self, request: R) -> R:
        """Return the request with observations in a form that the service takes."""
        observations = getattr(request, "observations")  # noqa: B009  both requests have it
        if not isinstance(observations, ObservationColumns):
            return request
        if self._takes_columns is None:
            try:
                self._takes_columns = "columns" in (await self.health()).observations
            except CalibrationError as error:
                # Rows are always right; the request itself will meet the error and retry.
                logger.info("rows are sent, since the service's health is not known: %s", error)
        if self._takes_columns:
            return request
        rows = await asyncio.to_thread(observations.rows)
        return msgspec.structs.replace(request, observations=rows)  # type: ignore[type-var]


def _names(observations: object) -> tuple[set[str], set[str]]:
    """Return the items and learners of a request."""
    if isinstance(observations, ObservationColumns):
        return set(observations.item_id), set(observations.user_id)
    assert isinstance(observations, list)
    return {row.item_id for row in observations}, {row.user_id for row in observations}
