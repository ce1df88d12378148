"""Every setting, read once from the environment into one frozen object."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stream.errors import SettingsError

__all__ = ["Settings", "describe"]

_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off", ""}


def _setting(
    env: str,
    default: Any,
    doc: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
    secret: bool = False,
) -> Any:
    """Declare one setting: its name in the environment, default, meaning and allowed values."""
    return dataclasses.field(
        default=default,
        repr=not secret,
        metadata={
            "env": env,
            "doc": doc,
            "minimum": minimum,
            "maximum": maximum,
            "choices": choices,
            "secret": secret,
        },
    )


@dataclass(frozen=True, slots=True)
class Settings:
    """What a deployment can choose; ``docs/settings.md`` is the same list in prose."""

    # -- outside systems ---------------------------------------------------------------------
    kafka_broker: str = _setting(
        "KAFKA_BROKER", "127.0.0.1:9092", "Bootstrap servers, host:port[,host:port]."
    )
    kafka_security_protocol: str = _setting(
        "THETASTREAM_KAFKA_SECURITY_PROTOCOL",
        "PLAINTEXT",
        "How the broker is spoken to.",
        choices=("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"),
    )
    kafka_sasl_mechanism: str = _setting(
        "THETASTREAM_KAFKA_SASL_MECHANISM",
        "SCRAM-SHA-512",
        "SASL mechanism, with a SASL_* protocol.",
        choices=("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"),
    )
    kafka_sasl_username: str = _setting("THETASTREAM_KAFKA_SASL_USERNAME", "", "SASL user name.")
    kafka_sasl_password: str = _setting(
        "THETASTREAM_KAFKA_SASL_PASSWORD", "", "SASL password.", secret=True
    )
    kafka_ssl_cafile: str = _setting(
        "THETASTREAM_KAFKA_SSL_CAFILE",
        "",
        "PEM file of the authority that signed the broker's certificate; empty: the system's.",
    )
    database_url: str = _setting(
        "DATABASE_URL",
        "postgresql://127.0.0.1:5432/thetastream",
        "PostgreSQL, as asyncpg reads it.",
        secret=True,
    )
    db_schema: str = _setting(
        "THETASTREAM_DB_SCHEMA",
        "public",
        "Schema of the tables; a shadow schema serves a bootstrap replay.",
    )
    r_irt_base_url: str = _setting(
        "R_IRT_BASE_URL", "http://127.0.0.1:8001", "The IRT calibration service."
    )
    r_irt_internal_token: str = _setting(
        "R_IRT_INTERNAL_TOKEN", "", "Bearer token of the R services.", secret=True
    )
    r_irt_timeout_secs: float = _setting(
        "R_IRT_TIMEOUT_SECS",
        300.0,
        "Seconds a fit may take before the try is given up.",
        minimum=0.1,
    )

    # -- calibration -------------------------------------------------------------------------
    mirt_lookback_days: int = _setting(
        "MIRT_LOOKBACK_DAYS",
        30,
        "Days of event time whose attempts enter a calibration.",
        minimum=1,
    )
    mirt_model: str = _setting(
        "MIRT_MODEL", "2PL", "Item response model.", choices=("1PL", "2PL", "3PL")
    )
    mirt_max_obs: int = _setting(
        "MIRT_MAX_OBS",
        0,
        "Most observations a calibration takes (a seeded sample of whole learners); 0: no cap.",
        minimum=0,
    )
    mirt_max_retries: int = _setting(
        "MIRT_MAX_RETRIES", 3, "Tries of one calibration request.", minimum=1, maximum=20
    )
    mirt_retry_delay_secs: float = _setting(
        "MIRT_RETRY_DELAY_SECS",
        5.0,
        "Seconds to wait after the first failed try; twice, three times this after the next.",
        minimum=0,
    )
    irt_update_question_meta: bool = _setting(
        "IRT_UPDATE_QUESTION_META",
        True,
        "Write a, b, c into question.meta.irt after a calibration.",
    )
    calibration_responses: str = _setting(
        "THETASTREAM_CALIBRATION_RESPONSES",
        "first",
        "Which of a learner's attempts at an item enter a calibration: the first in the window, or all.",
        choices=("first", "all"),
    )
    trigger_responses: int = _setting(
        "THETASTREAM_TRIGGER_RESPONSES",
        5000,
        "New attempts since the last calibration that ask for the next.",
        minimum=1,
    )
    trigger_share: float = _setting(
        "THETASTREAM_TRIGGER_SHARE",
        0.2,
        "Or this share of the attempts the last calibration used, whichever is larger.",
        minimum=0,
        maximum=10,
    )
    trigger_item_responses: int = _setting(
        "THETASTREAM_TRIGGER_ITEM_RESPONSES",
        30,
        "Attempts after which an item without calibrated parameters asks for a calibration.",
        minimum=1,
    )
    trigger_cooldown_secs: float = _setting(
        "THETASTREAM_TRIGGER_COOLDOWN_SECS",
        300.0,
        "Seconds of wall clock between two triggered calibrations of a kind (a person's request is not held back).",
        minimum=0,
    )
    calibration_schedule: str = _setting(
        "THETASTREAM_CALIBRATION_SCHEDULE",
        "",
        "Daily UTC time HH:MM of a scheduled calibration; empty: none in the process (Kubernetes has a CronJob).",
    )
    provisional_secs: float = _setting(
        "THETASTREAM_PROVISIONAL_SECS",
        5.0,
        "Seconds between publications of provisional difficulties for items not yet calibrated.",
        minimum=0.1,
    )
    gate_min_responses: int = _setting(
        "THETASTREAM_GATE_MIN_RESPONSES",
        500,
        "Fewest observations of a calibration that may be applied.",
        minimum=1,
    )
    gate_min_learners: int = _setting(
        "THETASTREAM_GATE_MIN_LEARNERS",
        50,
        "Fewest learners of a calibration that may be applied.",
        minimum=2,
    )

    # -- indicators --------------------------------------------------------------------------
    agg_include_theta: bool = _setting(
        "AGG_INCLUDE_THETA", True, "Fill theta_estimate and theta_sd in features_topic_daily."
    )
    metrics_use_irt_theta: bool = _setting(
        "METRICS_USE_IRT_THETA",
        True,
        "I_t from theta where there is enough evidence; off: always from accuracy.",
    )
    metrics_default_target: float = _setting(
        "METRICS_DEFAULT_TARGET",
        0.0,
        "Target ability (logits) of the KPI P.",
        minimum=-6,
        maximum=6,
    )
    dry_run: bool = _setting("DRY_RUN", False, "Calibrate and report, apply nothing.")

    # -- models ------------------------------------------------------------------------------
    r_glmm_base_url: str = _setting(
        "R_GLMM_BASE_URL", "", "The growth model service; empty: not used."
    )
    r_growth_base_url: str = _setting(
        "R_GROWTH_BASE_URL", "", "The Bayesian growth model service; empty: not used."
    )
    r_forecast_base_url: str = _setting(
        "R_FORECAST_BASE_URL", "", "The forecast service; empty: not used."
    )
    r_survival_base_url: str = _setting(
        "R_SURVIVAL_BASE_URL", "", "The churn (survival) service; empty: not used."
    )
    r_segments_base_url: str = _setting(
        "R_SEGMENTS_BASE_URL", "", "The segments service; empty: not used."
    )
    glmm_schedule: str = _setting(
        "THETASTREAM_GLMM_SCHEDULE",
        "Mon 03:30",
        "Weekly UTC time (Mon 03:30) of the growth model; empty: only when asked for.",
    )
    model_schedule: str = _setting(
        "THETASTREAM_MODEL_SCHEDULE",
        "Mon 04:00",
        "Weekly UTC time of the other models; empty: only when asked for.",
    )
    model_timeout_secs: float = _setting(
        "THETASTREAM_MODEL_TIMEOUT_SECS",
        1200.0,
        "Seconds a model's fit may take before the try is given up.",
        minimum=0.1,
    )
    model_max_rows: int = _setting(
        "THETASTREAM_MODEL_MAX_ROWS",
        300_000,
        "Most rows a model is fitted on (a fixed sample of whole learners beyond).",
        minimum=10,
    )
    growth_max_rows: int = _setting(
        "THETASTREAM_GROWTH_MAX_ROWS",
        1500,
        "Most rows of the Bayesian growth model, which takes minutes for thousands.",
        minimum=100,
    )
    glmm_lookback_weeks: int = _setting(
        "GLMM_LOOKBACK_WEEKS", 12, "Whole weeks that enter a growth model.", minimum=1
    )
    glmm_min_observations: int = _setting(
        "GLMM_MIN_OBSERVATIONS", 10, "Fewest rows of a growth model.", minimum=1
    )
    glmm_update_kpi: bool = _setting(
        "GLMM_UPDATE_KPI", False, "Write each learner's growth a week into weekly_kpi as G_t."
    )
    survival_update_kpi: bool = _setting(
        "THETASTREAM_SURVIVAL_UPDATE_KPI",
        False,
        "Put each learner's churn risk in the place of the KPI S in weekly_kpi.",
    )
    forecast_min_weeks: int = _setting(
        "THETASTREAM_FORECAST_MIN_WEEKS",
        8,
        "Fewest weeks with an I_t that are forecast from.",
        minimum=4,
    )
    forecast_z: float = _setting(
        "THETASTREAM_FORECAST_Z",
        2.5,
        "Distance from its expectation (robust standard deviations) that makes a week an anomaly.",
        minimum=1,
    )
    segments_k: int = _setting(
        "THETASTREAM_SEGMENTS_K",
        3,
        "Number of segments; 0: the number from 2 to 6 that separates best.",
        minimum=0,
        maximum=8,
    )

    # -- engine ------------------------------------------------------------------------------
    topic_prefix: str = _setting(
        "THETASTREAM_TOPIC_PREFIX",
        "",
        "Put before every Kafka topic, group and transactional id, so that two installations share a broker.",
    )
    partitions: int = _setting(
        "THETASTREAM_PARTITIONS",
        12,
        "Partitions of attempts and of all topics keyed by learner; fixed when the topics are made.",
        minimum=1,
        maximum=1000,
    )
    replication: int = _setting(
        "THETASTREAM_REPLICATION",
        1,
        "Replicas of each topic when it is made (3 in production).",
        minimum=1,
        maximum=10,
    )
    lateness_days: int = _setting(
        "THETASTREAM_LATENESS_DAYS",
        7,
        "Days an attempt may be older than its learner's latest.",
        minimum=0,
        maximum=28,
    )
    flush_interval_secs: float = _setting(
        "THETASTREAM_FLUSH_INTERVAL_SECS",
        1.0,
        "Seconds between two flushes of a partition's changed rows.",
        minimum=0.01,
        maximum=60,
    )
    flush_rows: int = _setting(
        "THETASTREAM_FLUSH_ROWS",
        20_000,
        "Changed learners of a partition that cause a flush at once.",
        minimum=1,
    )
    session_timeout_secs: float = _setting(
        "THETASTREAM_SESSION_TIMEOUT_SECS",
        20.0,
        "Seconds without a heartbeat after which the broker gives a process's partitions to others.",
        minimum=6,
        maximum=300,
    )
    transaction_timeout_secs: float = _setting(
        "THETASTREAM_TRANSACTION_TIMEOUT_SECS",
        60.0,
        "Seconds after which the broker aborts an unfinished flush.",
        minimum=5,
        maximum=900,
    )
    web_host: str = _setting(
        "THETASTREAM_WEB_HOST", "127.0.0.1", "Address the HTTP server listens on."
    )
    web_port: int = _setting(
        "THETASTREAM_WEB_PORT",
        6066,
        "Port of the HTTP server; 0: any free one.",
        minimum=0,
        maximum=65535,
    )
    api_token: str = _setting(
        "THETASTREAM_API_TOKEN",
        "",
        "Bearer token the lookup API asks for; empty: none.",
        secret=True,
    )
    log_level: str = _setting(
        "THETASTREAM_LOG_LEVEL",
        "info",
        "Least severe level that is logged.",
        choices=("debug", "info", "warning", "error"),
    )
    state_dir: str = _setting("THETASTREAM_STATE_DIR", ".local", "Directory of the local stack.")

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the environment.

        Parameters
        ----------
        environ
            Names and values; the process's own environment by default.

        Raises
        ------
        SettingsError
            A value is not allowed. The message gives the name, the value and what is allowed.
        """
        source = os.environ if environ is None else environ
        values = {
            field.name: _parse(field, source[field.metadata["env"]])
            for field in dataclasses.fields(cls)
            if field.metadata["env"] in source
        }
        return cls(**values)

    def topic(self, name: str) -> str:
        """Return the full Kafka name of a topic, group or transactional id."""
        return self.topic_prefix + name


def describe() -> list[dict[str, Any]]:
    """List every setting (name, type, default, allowed values, meaning), secrets' values left out."""
    return [
        {
            "field": f.name,
            "type": str(f.type),
            "default": f.default,
            "allowed": _allowed(f),
            **f.metadata,
        }
        for f in dataclasses.fields(Settings)
    ]


def _allowed(field: dataclasses.Field[Any]) -> str:
    meta = field.metadata
    if meta["choices"]:
        return "one of " + ", ".join(meta["choices"])
    kind = {"bool": "true or false", "int": "a whole number", "float": "a number"}.get(
        str(field.type)
    )
    if kind is None:
        return "a text"
    if meta["minimum"] is not None:
        kind += f" >= {meta['minimum']}"
    if meta["maximum"] is not None:
        kind += f" and <= {meta['maximum']}"
    return kind


def _parse(field: dataclasses.Field[Any], text: str) -> Any:
    meta = field.metadata
    value: Any = text.strip()
    try:
        if field.type == "bool":
            lowered = value.lower()
            if lowered not in _TRUE | _FALSE:
                raise ValueError
            return lowered in _TRUE
        if field.type == "int":
            value = int(value)
        elif field.type == "float":
            value = float(value)
        outside = (
            (meta["minimum"] is not None and not value >= meta["minimum"])
            or (meta["maximum"] is not None and not value <= meta["maximum"])
            or (meta["choices"] and value not in meta["choices"])
        )
        if outside:
            raise ValueError
    except ValueError:
        shown = "***" if meta["secret"] else repr(text)
        raise SettingsError(
            f"{meta['env']}={shown} is not allowed: give {_allowed(field)}."
        ) from None
    return value
