from __future__ import annotations

import dataclasses

import pytest

from stream.errors import SettingsError
from stream.settings import Settings, describe


def test_the_environment_is_read() -> None:
    settings = Settings.from_env(
        {"KAFKA_BROKER": "b:1", "MIRT_LOOKBACK_DAYS": "14", "DRY_RUN": "true", "OTHER": "x"}
    )
    assert (settings.kafka_broker, settings.mirt_lookback_days, settings.dry_run) == (
        "b:1",
        14,
        True,
    )


def test_without_an_environment_the_defaults_hold() -> None:
    assert Settings.from_env({}) == Settings()


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("MIRT_LOOKBACK_DAYS", "soon", "a whole number >= 1"),
        ("MIRT_LOOKBACK_DAYS", "0", "a whole number >= 1"),
        ("MIRT_MODEL", "4PL", "one of 1PL, 2PL, 3PL"),
        ("DRY_RUN", "perhaps", "true or false"),
        ("THETASTREAM_FLUSH_INTERVAL_SECS", "nan", "a number >= 0.01 and <= 60"),
        ("THETASTREAM_LATENESS_DAYS", "29", "a whole number >= 0 and <= 28"),
    ],
)
def test_a_bad_value_is_refused_with_name_value_and_what_is_allowed(
    name: str, value: str, allowed: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({name: value})
    assert str(caught.value) == f"{name}={value!r} is not allowed: give {allowed}."


def test_a_secret_is_shown_nowhere() -> None:
    settings = Settings.from_env({"R_IRT_INTERNAL_TOKEN": "hush", "DATABASE_URL": "pw"})
    assert "hush" not in repr(settings)
    assert "pw" not in repr(settings)


def test_defaults_are_themselves_allowed() -> None:
    values = {
        row["env"]: str(row["default"]).lower() if row["type"] == "bool" else str(row["default"])
        for row in describe()
    }
    assert Settings.from_env(values) == Settings()


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().kafka_broker = "x"  # type: ignore[misc]
