"""``make bench``: thetastream beside its peers on one broker and one topic of attempts."""

from __future__ import annotations

import argparse
import os
import time
import tomllib
from importlib.metadata import version
from pathlib import Path

from bench.attempts import PARTITIONS, POPULATIONS, QUICK, Population, draw, write
from bench.engine import run_engine
from bench.java import VERSION as STREAMS
from bench.java import streams_command
from bench.meter import Figure
from bench.peer import Peer, PeerMissingError, python_command, run_peer
from bench.pipeline import RESULTS
from bench.report import print_table, write_results
from stream.local.stack import running_stack
from stream.settings import Settings

PYTHON_PEERS = (
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
JAVA_PEERS = (
    Peer("Kafka Streams, in memory", STREAMS, "small", lambda: streams_command("memory")),
    Peer("Kafka Streams, RocksDB", STREAMS, "small", lambda: streams_command("rocksdb")),
)


def compare(
    populations: tuple[Population, ...], peers: tuple[Peer, ...], *, ours: bool, two: bool
) -> tuple[list[Figure], list[str]]:
    """Run every engine on every population.

    Returns
    -------
    tuple
        What was measured, and for each engine that is missing a sentence why.
    """
    figures: list[Figure] = []
    missing: list[str] = []
    with running_stack(parts=("kafka",)) as stack:
        for population in populations:
            settings = Settings(
                kafka_broker=stack.addresses.kafka_broker,
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
            if ours:
                for processes in (1, 2) if two else (1,):
                    figures.append(
                        run_engine(
                            settings,
                            learners=population.learners,
                            version=_own_version(),
                            processes=processes,
                        )
                    )
                    _tell(figures[-1])
            for peer in peers:
                try:
                    figures.append(
                        run_peer(
                            peer,
                            broker=settings.kafka_broker,
                            topic=settings.topic("attempts"),
                            partitions=PARTITIONS,
                            events=population.attempts,
                            learners=population.learners,
                            theta_sum=theta_sum,
                        )
                    )
                except PeerMissingError as error:
                    missing.append(f"{peer.engine} is missing: {error}")
                    _say(missing[-1])
                else:
                    _tell(figures[-1])
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
    parser.add_argument("--attempts", type=int, help="attempts in place of a population's own")
    parser.add_argument("--results", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    quick = os.environ.get("QUICK", "") not in ("", "0")
    populations = QUICK if quick else POPULATIONS
    if chosen.attempts:
        populations = tuple(
            Population(chosen.attempts, min(p.learners, chosen.attempts), p.days)
            for p in populations
        )

    peers = PYTHON_PEERS if quick and not chosen.java else PYTHON_PEERS + JAVA_PEERS

    def wanted(engine: str) -> bool:
        return not chosen.only or any(engine.lower().startswith(o.lower()) for o in chosen.only)

    figures, missing = compare(
        populations,
        tuple(peer for peer in peers if wanted(peer.engine)),
        ours=wanted("thetastream"),
        two=not quick,
    )
    print_table(figures, missing)
    write_results(figures, chosen.results)


if __name__ == "__main__":
    main()
