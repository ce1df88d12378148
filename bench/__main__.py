"""``make bench``: thetastream beside its peers on one broker, then its other promises.

The comparison goes to ``bench/results/latest.json`` and ``latest.svg``, the rest to
``bench/results/engine.json``. ``docs/benchmarks.md`` says what is measured and how.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
import tomllib
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import psutil

from bench.attempts import PARTITIONS, POPULATIONS, QUICK, Population, draw, write
from bench.engine import run_engine
from bench.figures import recovery_and_lookups, sink_rows
from bench.java import VERSION as STREAMS
from bench.java import streams_command
from bench.memory import measure_memory
from bench.meter import Figure
from bench.peer import Peer, PeerMissingError, python_command, run_peer
from bench.pipeline import RESULTS
from bench.report import print_table, write_results
from bench.steady import steady_latency
from stream.local.stack import StackAddresses, running_stack
from stream.settings import Settings

PYTHON_PEERS: tuple[Peer, ...] = (
    Peer(
        "read limit",
        f"aiokafka {version('aiokafka')}, orjson {version('orjson')}",
        "read",
        lambda: python_command("read_limit"),
    ),
    Peer(
        "Bytewax, batch operators",
        "0.21.1",
        "small",
        lambda: python_command("bytewax", "batched.py"),
    ),
    Peer("Bytewax", "0.21.1", "small", lambda: python_command("bytewax")),
    Peer("Quix Streams", "3.28.0", "small", lambda: python_command("quix")),
    Peer(
        "Faust",
        version("faust-streaming"),
        "small",
        lambda: python_command("faust"),
        most_events=60_000,
    ),
)
JAVA_PEERS: tuple[Peer, ...] = (
    Peer("Kafka Streams, in memory", STREAMS, "small", lambda: streams_command("memory")),
    Peer("Kafka Streams, RocksDB", STREAMS, "small", lambda: streams_command("rocksdb")),
)


def compare(
    addresses: StackAddresses,
    population: Population,
    peers: Sequence[Peer],
    *,
    processes: Sequence[int],
    afterwards: Callable[[Settings, Figure], None],
) -> tuple[list[Figure], list[str]]:
    """Write a population's attempts and let every engine fold them in turn.

    Parameters
    ----------
    addresses
        Of the stack.
    processes
        Our runs: with how many engine processes each.
    afterwards
        Called last, with what our last engine left on the broker and the figures of our first run.

    Returns
    -------
    tuple
        What was measured, and for each engine that is missing a sentence why.
    """
    figures: list[Figure] = []
    missing: list[str] = []
    settings = Settings(
        kafka_broker=addresses.kafka_broker,
        database_url=addresses.database_url,
        topic_prefix=f"bench-{population.learners}.",
        partitions=PARTITIONS,
    )
    began = time.perf_counter()
    attempts = draw(population)
    write(settings, attempts)
    theta_sum = attempts.theta_sum()
    del attempts
    _say(
        f"{population.attempts:,} attempts by {population.learners:,} learners written "
        f"in {time.perf_counter() - began:.0f} s"
    )
    for count in processes:
        figures.append(
            run_engine(
                settings,
                learners=population.learners,
                version=_own_version(),
                processes=count,
            )
        )
        _tell(figures[-1])
    ours = list(figures)
    for peer in peers:
        try:
            figure = run_peer(
                peer,
                broker=addresses.kafka_broker,
                topic=settings.topic("attempts"),
                partitions=PARTITIONS,
                events=population.attempts,
                learners=population.learners,
                theta_sum=theta_sum,
            )
        except PeerMissingError as error:
            missing.append(f"{peer.engine} is missing ({population.learners:,} learners): {error}")
            _say(missing[-1])
        else:
            figures.append(figure)
            _tell(figure)
    if ours:
        # Last: it sends more attempts to the topic.
        afterwards(settings, ours[0])
    return figures, missing


def _own_version() -> str:
    """Return the version of this checkout, installed or not."""
    project = Path(__file__).parents[1] / "pyproject.toml"
    return str(tomllib.loads(project.read_text())["project"]["version"])


def _tell(figure: Figure) -> None:
    _say(f"{figure.engine}: {figure.events_per_s:,.0f} events/s")


def _say(line: str) -> None:
    print(f"  {line}", flush=True)


def main() -> None:
    """Compare, print the table, write ``bench/results``."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", nargs="*", help="engines to run, by the start of their names")
    parser.add_argument("--java", action="store_true", help="Kafka Streams in a quick run, too")
    parser.add_argument(
        "--further", choices=("yes", "no"), help="the further figures; not in a quick run"
    )
    parser.add_argument("--attempts", type=int, help="attempts in place of a population's own")
    parser.add_argument("--results", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    quick = os.environ.get("QUICK", "") not in ("", "0")
    further = chosen.further == "yes" or (chosen.further is None and not quick)
    populations: tuple[Population, ...] = QUICK if quick else POPULATIONS
    if chosen.attempts:
        populations = tuple(
            Population(chosen.attempts, min(p.learners, chosen.attempts), p.days)
            for p in populations
        )

    def wanted(engine: str) -> bool:
        return not chosen.only or any(engine.lower().startswith(o.lower()) for o in chosen.only)

    peers = PYTHON_PEERS if quick and not chosen.java else PYTHON_PEERS + JAVA_PEERS
    peers = tuple(peer for peer in peers if wanted(peer.engine))
    processes = ((1,) if quick else (1, 2)) if wanted("thetastream") else ()
    figures: list[Figure] = []
    missing: list[str] = []
    promises: dict[str, object] = {"machine": _machine()}
    _say(str(promises["machine"]))

    def further_figures(settings: Settings, ours: Figure) -> None:
        if ours.learners == populations[0].learners:
            _measure(promises, "sinks", lambda: sink_rows(settings))
        if ours.learners == populations[-1].learners:
            _measure(
                promises,
                "engine",
                lambda: recovery_and_lookups(
                    settings, learners=ours.learners, maximum_rate=ours.events_per_s
                ),
            )

    with running_stack(parts=("kafka", "postgres") if further else ("kafka",)) as stack:
        for population in populations:
            more, absent = compare(
                stack.addresses,
                population,
                peers,
                processes=processes,
                afterwards=further_figures if further else lambda _settings, _ours: None,
            )
            figures += more
            missing += absent
            print_table(more, absent)
            write_results(figures, chosen.results)
    if further:
        _measure(promises, "memory", measure_memory)
        _measure(promises, "steady", steady_latency)
        (chosen.results / "engine.json").write_text(json.dumps(promises, indent=2) + "\n")


def _measure(
    promises: dict[str, object], name: str, function: Callable[[], dict[str, object]]
) -> None:
    """Add what a measurement finds; one that fails says so and does not end the others."""
    try:
        promises[name] = function()
    except SystemExit as error:
        promises[name] = {"failed": str(error)}
    _say(f"{name}: {json.dumps(promises[name])}")


def _machine() -> str:
    """Say what this was measured on."""
    memory = psutil.virtual_memory().total / 1024**3
    return (
        f"{psutil.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}"
    )


if __name__ == "__main__":
    main()
