"""The broker's jars: pinned, checked, and fetched only when they are missing."""

import hashlib
import os
import socket

import pytest

from stream.errors import LocalStackError
from stream.local import kafka_jars
from stream.local.addresses import default_cache_dir
from stream.local.kafka_jars import ensure_jars, jar_name, locked_jars


@pytest.fixture
def no_network(monkeypatch):
    # A port that nothing listens on, as a proxy for everything.
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        proxy = f"http://127.0.0.1:{closed.getsockname()[1]}"
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def filled_cache(tmp_path):
    """Return the cache that all stacks share, its jars sure to be there."""
    cache = default_cache_dir(os.environ, tmp_path)
    ensure_jars(cache)
    return cache


def test_the_jars_in_the_shared_cache_are_the_pinned_ones(filled_cache):
    for coordinate, sha256 in locked_jars().items():
        jar = filled_cache / "kafka-jars" / jar_name(coordinate)
        assert hashlib.sha256(jar.read_bytes()).hexdigest() == sha256, coordinate


def test_a_filled_cache_needs_no_network(filled_cache, no_network):
    assert len(ensure_jars(filled_cache)) == len(locked_jars())


def test_without_network_the_first_start_says_what_to_do(tmp_path, no_network):
    with pytest.raises(LocalStackError, match=r"could not be downloaded[\s\S]*KAFKA_BROKER"):
        ensure_jars(tmp_path)
    assert list((tmp_path / "kafka-jars").iterdir()) == []


def test_a_jar_that_is_not_the_pinned_one_is_refused_and_not_kept(tmp_path, monkeypatch):
    def tampered(coordinate, *, scratch):
        jar = scratch / jar_name(coordinate)
        jar.write_bytes(b"something else")
        return jar

    monkeypatch.setattr(kafka_jars, "_download", tampered)
    with pytest.raises(LocalStackError, match=r"has SHA-256 \w+, expected \w+; it was not kept"):
        ensure_jars(tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == ["kafka-jars"]
    assert list((tmp_path / "kafka-jars").iterdir()) == []


def test_every_jar_has_a_name_of_its_own():
    names = [jar_name(one) for one in locked_jars()]
    assert len(set(names)) == len(names)
    assert jar_name(kafka_jars.KAFKA) in names
    assert jar_name(kafka_jars.LOG_BINDING) in names
