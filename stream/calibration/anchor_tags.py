"""Tagging anchors in the ``question`` table, from what calibrations left in the database."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import msgspec
from asyncpg.exceptions import InterfaceError, PostgresError

from schemas.codec import decode_any
from stream.database import CONNECT_TIMEOUT_S, SESSION, convert_error, quoted
from stream.domain.anchors import AnchorCandidate, choose_anchors, unfit_reasons
from stream.domain.irt import ItemParams, item_params
from stream.errors import ItemParamsError
from stream.settings import Settings

__all__ = ["RECENT_CALIBRATIONS", "AnchorPlan", "KnownItem", "plan_anchors", "tag_anchors"]

RECENT_CALIBRATIONS = 5
"""Calibrations over which b must hold still: older ones tell of another curriculum."""

_ITEMS = """
    select coalesce(p.item_id::text, q.id::text) as item_id, p.params::text as params,
        t.attempts, q.id is not null as in_catalogue,
        jsonb_typeof(coalesce(q.meta::jsonb, '{{}}')) = 'object'
            and coalesce(jsonb_typeof(q.meta::jsonb -> 'tags'), 'null') in ('null', 'array')
            as can_be_tagged,
        coalesce(q.meta::jsonb -> 'tags' ? 'anchor', false) as has_tag,
        coalesce(jsonb_typeof(q.meta::jsonb -> 'irt') = 'object', false) as has_irt
    from {0}.mirt_item_params p
    full join {0}.question q on q.id::text = p.item_id::text
    left join {0}.item_totals t on t.item_id::text = p.item_id::text
    where p.item_id is not null or q.meta::jsonb -> 'tags' ? 'anchor'
"""
_HISTORY = """
    select item_id, params, metrics
    from (
        select item_id::text, params::text, metrics::text, row_number() over (
            partition by item_id order by fitted_at desc nulls last, source_offset desc nulls last
        ) as nth
        from {0}.item_calibration
    ) as newest_first
    where nth <= $1
    order by nth
"""
_META_TYPE = """
    select format_type(atttypid, -1) from pg_attribute
    where attrelid = to_regclass($1) and attname = 'meta' and not attisdropped
"""
# Both look again at what they change: people edit the catalogue meanwhile.
_ADD = """
    update {0}.question as q
    set meta = jsonb_set(
        coalesce(q.meta::jsonb, '{{}}') || jsonb_build_object('irt', x.irt::jsonb),
        '{{tags}}',
        coalesce(nullif(q.meta::jsonb -> 'tags', 'null'), '[]') || case
            when coalesce(q.meta::jsonb -> 'tags' ? 'anchor', false) then '[]'::jsonb
            else '["anchor"]' end
    )::{1}
    from unnest($1::text[], $2::text[]) as x (id, irt)
    where q.id::text = x.id and jsonb_typeof(coalesce(q.meta::jsonb, '{{}}')) = 'object'
        and coalesce(jsonb_typeof(q.meta::jsonb -> 'tags'), 'null') in ('null', 'array')
"""
_REMOVE = """
    update {0}.question as q
    set meta = jsonb_set(q.meta::jsonb, '{{tags}}', (q.meta::jsonb -> 'tags') - 'anchor')::{1}
    where q.id::text = any ($1::text[]) and jsonb_typeof(q.meta::jsonb -> 'tags') = 'array'
"""


@dataclass(frozen=True, slots=True)
class KnownItem:
    """What the database holds of an item that is calibrated or tagged.

    Attributes
    ----------
    params
        In force; None without usable ones.
    n
        Responses they rest on.
    b_history
        Difficulty in the last `RECENT_CALIBRATIONS` calibrations.
    in_catalogue, can_be_tagged
        Whether ``question`` has the item, and its ``meta`` is an object whose tags are a list.
    has_tag, has_irt
        Whether it is tagged as an anchor, and its ``meta.irt`` is there.
    """

    item_id: str
    params: ItemParams | None
    n: int = 0
    b_history: tuple[float, ...] = ()
    in_catalogue: bool = True
    can_be_tagged: bool = True
    has_tag: bool = False
    has_irt: bool = False

    def unfit(self) -> list[str]:
        """Return why it cannot be an anchor, a phrase each."""
        if self.params is None:
            return ["it has no calibrated parameters"]
        reasons = unfit_reasons(self.candidate())
        if not self.in_catalogue:
            reasons.append("the table question has no row for it")
        elif not self.can_be_tagged:
            reasons.append("question.meta is no object, or its tags are no list")
        return reasons

    def candidate(self) -> AnchorCandidate:
        """Return it as the choice sees it; only of an item with parameters."""
        assert self.params is not None
        return AnchorCandidate(self.item_id, self.params.a, self.params.b, self.n, self.b_history)


@dataclass(frozen=True, slots=True)
class AnchorPlan:
    """What becomes of the tags.

    Attributes
    ----------
    added
        Items to tag, and the parameters their ``meta.irt`` gets.
    kept
        Items that are tagged and stay so, fit or not.
    removed
        Items whose tag goes.
    spare
        Fit items that are not needed.
    unfit
        item_id -> why it cannot be an anchor, tagged or not.
    """

    added: dict[str, ItemParams] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    spare: list[str] = field(default_factory=list)
    unfit: dict[str, list[str]] = field(default_factory=dict)


def plan_anchors(
    items: Iterable[KnownItem], max_candidates: int = 50, *, prune: bool = False
) -> AnchorPlan:
    """Choose which items get the tag ``anchor`` and which lose it.

    An anchor that is fit stays one, whether or not a better one has appeared: a scale is held
    by those that stay. Others fill up to the number wanted, spread over the difficulties.

    Parameters
    ----------
    items
        What is known of calibrated and of tagged items.
    max_candidates
        Most anchors, those tagged before included.
    prune
        Whether unfit items lose the tag.
    """
    known = {item.item_id: item for item in items}
    unfit = {name: why for name, item in sorted(known.items()) if (why := item.unfit())}
    fit = {name: item for name, item in known.items() if name not in unfit}
    removed = sorted(name for name in unfit if prune and known[name].has_tag)
    kept = sorted(
        name
        for name, item in known.items()
        if item.has_tag and (item.has_irt or name in unfit) and name not in removed
    )
    chosen = choose_anchors((item.candidate() for item in fit.values()), max_candidates)
    new = [fit[name].candidate() for name in chosen if name not in kept]
    added = choose_anchors(new, max_candidates - len(kept))
    return AnchorPlan(
        added={name: params for name in added if (params := fit[name].params) is not None},
        kept=kept,
        removed=removed,
        spare=sorted(fit.keys() - {*added, *kept}),
        unfit=unfit,
    )


async def tag_anchors(
    settings: Settings, max_candidates: int = 50, *, prune: bool = False, dry_run: bool = False
) -> AnchorPlan:
    """Choose anchors and tag them: ``question.meta`` gets the tag and ``irt`` {a, b, c}.

    Other tags and keys stay as they are. All is written in one transaction.

    Parameters
    ----------
    settings
        Where the database is.
    max_candidates, prune
        See `plan_anchors`.
    dry_run
        Write nothing.

    Raises
    ------
    DatabaseUnavailableError
        PostgreSQL cannot be used; nothing was changed.
    DatabaseSchemaError
        A table or column is missing; nothing was changed.
    """
    try:
        connection = await asyncpg.connect(
            settings.database_url, timeout=CONNECT_TIMEOUT_S, server_settings=SESSION
        )
        try:
            async with connection.transaction():
                items = await _known_items(connection, quoted(settings.db_schema))
                plan = await asyncio.to_thread(plan_anchors, items, max_candidates, prune=prune)
                if not dry_run:
                    await _write(connection, quoted(settings.db_schema), plan)
            return plan
        finally:
            await connection.close(timeout=1.0)
    except (OSError, PostgresError, InterfaceError, ValueError, TimeoutError) as error:
        raise convert_error(error, settings.database_url) from error


async def _known_items(connection: asyncpg.Connection, schema: str) -> list[KnownItem]:
    history: dict[str, list[Any]] = {}
    for row in await connection.fetch(_HISTORY.format(schema), RECENT_CALIBRATIONS):
        history.setdefault(row["item_id"], []).append(row)
    return [
        _known(row, history.get(row["item_id"], []))
        for row in await connection.fetch(_ITEMS.format(schema))
    ]


def _known(row: Any, history: list[Any]) -> KnownItem:
    """Read an item's rows; what a platform wrote there by itself may be anything."""
    past = [params for run in history if (params := _params(run["params"])) is not None]
    metrics = _object(history[0]["metrics"]) if history else {}
    n = metrics.get("n")
    return KnownItem(
        item_id=row["item_id"],
        params=_params(row["params"]),
        n=n if isinstance(n, int) and n > 0 else row["attempts"] or 0,
        b_history=tuple(params.b for params in past),
        in_catalogue=row["in_catalogue"],
        can_be_tagged=row["can_be_tagged"],
        has_tag=row["has_tag"],
        has_irt=row["has_irt"],
    )


def _params(text: str | None) -> ItemParams | None:
    found = _object(text)
    try:
        return item_params(found["a"], found["b"], found.get("c") or 0.0)
    except (ItemParamsError, KeyError):
        return None


def _object(text: str | None) -> dict[str, Any]:
    try:
        found = decode_any(text or "{}")
    except msgspec.DecodeError:
        return {}
    return found if isinstance(found, dict) else {}


async def _write(connection: asyncpg.Connection, schema: str, plan: AnchorPlan) -> None:
    kind = await connection.fetchval(_META_TYPE, f"{schema}.question")
    if plan.added:
        irt = [msgspec.json.encode(params._asdict()).decode() for params in plan.added.values()]
        await connection.execute(_ADD.format(schema, kind), list(plan.added), irt)
    if plan.removed:
        await connection.execute(_REMOVE.format(schema, kind), plan.removed)
