"""A stack that may be broken: the other tests' broker must live on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from stream.local.stack import Stack, running_stack


@pytest.fixture(scope="package")
def chaos_stack() -> Iterator[Stack]:
    """Kafka and PostgreSQL for these tests alone."""
    with running_stack(parts=("kafka", "postgres")) as stack:
        yield stack
