"""Rows into PostgreSQL: the agents of the sink role."""

from __future__ import annotations

from typing import Any

from stream.app import ThetaApp
from stream.settings import Settings
from stream.sinks import calibration, features, kpi, models, theta, totals
from stream.sinks.consume import Reader, add_agent
from stream.sinks.pool import SinkDatabase
from stream.sinks.upsert import Batch
from topics import catalogue
from topics.catalogue import TopicSpec

__all__ = ["register"]

_MAX_POLL_RECORDS = 2000
"""Records of one batch. With the stream's buffer it bounds what waits in memory while PostgreSQL
is away."""

_TABLES = (
    theta.mirt_ability,
    theta.student_topic_theta,
    features.features_topic_daily,
    kpi.weekly_kpi,
    totals.topic_partials,
    totals.item_partials,
    calibration.mirt_item_params,
    calibration.item_calibration,
    calibration.mirt_fit_meta,
    calibration.decided_run,
    calibration.drift_alerts,
    calibration.question,
    *models.TABLES,
)


def register(app: ThetaApp) -> SinkDatabase:
    """Add the sink's agents, one a topic, and the database they share. Does no I/O.

    Returns
    -------
    SinkDatabase
        ``ready`` tells whether the tables were found.
    """
    settings = app.settings
    app.conf.broker_max_poll_records = _MAX_POLL_RECORDS
    database = SinkDatabase(settings, _TABLES)
    app.early_services.append(database)
    readers: list[tuple[TopicSpec, Reader]] = [
        (catalogue.theta_updates_topic, theta.theta_reader(settings)),
        (catalogue.feature_updates_topic, features.read_features),
        (catalogue.kpi_updates_topic, kpi.read_kpis),
        (catalogue.topic_partials_topic, totals.read_topic_partial),
        (catalogue.item_partials_topic, totals.read_item_partial),
        (catalogue.item_params_topic, calibration.item_params_reader(settings)),
        (catalogue.batch_abilities_topic, calibration.batch_ability_reader(settings)),
        (catalogue.calibration_results_topic, _results_reader(settings)),
    ]
    for spec, read in readers:
        add_agent(app, database, spec, read)
    return database


def _results_reader(settings: Settings) -> Reader:
    """Return the reader of ``calibration-results``: calibrations' and models' records."""
    read_model = models.model_result_reader(settings)

    def read(record: Any, batch: Batch) -> None:
        calibration.read_calibration_result(record, batch)
        read_model(record, batch)

    return read
