"""The calibration service as a fitter: observations into its contract, its answer out of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import httpx
import msgspec

from schemas.calibration import CalibratedItem
from stream.calibration.client import RIrtClient
from stream.calibration.contract import (
    AnchorRecord,
    CalibrateRequest,
    CalibrateResponse,
    FittedItem,
    ObservationColumns,
    ParamsRecord,
)
from stream.calibration.observations import Observations
from stream.calibration.run import Fit, Fitter
from stream.domain.irt import ItemParams
from stream.settings import Settings

__all__ = ["service_fitter"]


def service_fitter(settings: Settings, transport: httpx.AsyncBaseTransport | None = None) -> Fitter:
    """Return what fits through the service at R_IRT_BASE_URL; ``transport`` is for tests."""

    async def fit(observations: Observations, model: str, anchors: Mapping[str, ItemParams]) -> Fit:
        request = await asyncio.to_thread(_request, observations, model, anchors)
        client = RIrtClient(
            settings.r_irt_base_url,
            settings.r_irt_internal_token,
            timeout_s=settings.r_irt_timeout_secs,
            max_retries=settings.mirt_max_retries,
            retry_delay_s=settings.mirt_retry_delay_secs,
            transport=transport,
        )
        async with client:
            return _fit(await client.calibrate(request))

    return fit


def _request(
    observations: Observations, model: str, anchors: Mapping[str, ItemParams]
) -> CalibrateRequest:
    return CalibrateRequest(
        observations=ObservationColumns(
            user_id=[observations.learners[n] for n in observations.learner.tolist()],
            item_id=[observations.items[n] for n in observations.item.tolist()],
            is_correct=observations.correct.tolist(),
            responded_at=observations.responded_at.tolist(),
        ),
        model=model,
        anchors=[
            AnchorRecord(item, ParamsRecord(params.a, params.b, params.c))
            for item, params in anchors.items()
        ],
    )


def _fit(response: CalibrateResponse) -> Fit:
    fit_meta = msgspec.to_builtins(response.fit_meta)
    flagged = {item.item_id: item.flags for item in response.item_params if item.flags}
    if flagged:
        fit_meta["flagged_items"] = flagged
    return Fit(
        items=[_item(item) for item in response.item_params],
        abilities=[(ability.user_id, ability.theta, ability.se) for ability in response.abilities],
        fit_meta=fit_meta,
    )


def _item(item: FittedItem) -> CalibratedItem:
    errors = item.se or {}
    return CalibratedItem(
        item_id=item.item_id,
        a=item.params.a,
        b=item.params.b,
        c=item.params.c,
        se_a=errors.get("a"),
        se_b=errors.get("b"),
        n=item.n,
    )
