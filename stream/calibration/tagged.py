"""Anchors that people tagged, from the ``question`` table."""

from __future__ import annotations

import asyncio
import logging

import asyncpg
from asyncpg.exceptions import InterfaceError, PostgresError

from schemas.codec import decode_any
from stream.database import CONNECT_TIMEOUT_S, SESSION, convert_error, quoted
from stream.domain.irt import ItemParams, item_params
from stream.errors import ItemParamsError
from stream.settings import Settings

__all__ = ["tagged_anchors"]

logger = logging.getLogger(__name__)

_QUERY = """
    select id::text as item_id, meta::jsonb #>> '{irt}' as irt
    from %s.question
    where meta::jsonb -> 'tags' ? 'anchor' and meta::jsonb -> 'irt' is not null
"""


async def tagged_anchors(settings: Settings) -> dict[str, ItemParams] | None:
    """Return the items tagged as anchors and their parameters; None if the database is away.

    An anchor without usable parameters is left out with a warning.
    """
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            connection = await asyncpg.connect(settings.database_url, server_settings=SESSION)
            try:
                rows = await connection.fetch(_QUERY % quoted(settings.db_schema))
            finally:
                await connection.close(timeout=1.0)
    except (OSError, PostgresError, InterfaceError, ValueError, TimeoutError) as error:
        why = convert_error(error, settings.database_url)
        logger.warning("it is not known which items are anchors: %s", why)
        return None
    anchors = {}
    for row in rows:
        try:
            irt = decode_any(row["irt"])
            anchors[row["item_id"]] = item_params(
                float(irt["a"]), float(irt["b"]), float(irt.get("c") or 0.0)
            )
        except (ItemParamsError, KeyError, TypeError, ValueError, AttributeError) as error:
            logger.warning("the anchor %s has no usable a, b, c: %r", row["item_id"], error)
    return anchors
