import sys
from pathlib import Path

import pytest

from bench.java import locked_jars
from bench.memory import slope
from bench.peer import PEERS, Peer, PeerMissingError, python_command, run_peer

SENDS = """
from small_job import Job
job = Job.from_argument()
print("some banner", end="")
job.begin()
job.end({sum})
"""


def run(program: str, *, events: int = 10, most_events: int | None = None):  # type: ignore[no-untyped-def]
    peer = Peer("a peer", "1", "small", lambda: [sys.executable, "-c", program], most_events)
    return run_peer(
        peer,
        broker="127.0.0.1:1",
        topic="attempts",
        partitions=4,
        events=events,
        learners=3,
        theta_sum=1.5,
    )


def test_a_peer_is_measured_from_its_begin_to_its_end() -> None:
    figure = run(SENDS.format(sum=1.5))
    assert figure.events == 10
    assert figure.events_per_s > 0
    assert figure.peak_rss_mib > 1


def test_a_peer_with_wrong_thetas_does_not_count() -> None:
    with pytest.raises(PeerMissingError, match="its state is wrong"):
        run(SENDS.format(sum=1.6))


def test_thetas_of_a_part_of_the_topic_are_not_compared() -> None:
    assert run(SENDS.format(sum=0.1), most_events=5).events == 5


def test_a_peer_that_ends_early_is_missing_with_its_last_words() -> None:
    with pytest.raises(PeerMissingError, match="it ended before its work did: no broker"):
        run("import sys; sys.exit('no broker')")


def test_an_environment_that_cannot_be_made_is_a_missing_peer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "absent"
    directory.mkdir()
    (directory / "requirements.txt").write_text("no such requirement ==\n")
    monkeypatch.setattr("bench.peer.PEERS", tmp_path)
    monkeypatch.setattr("bench.peer.HOME", tmp_path)
    monkeypatch.setattr("bench.peer.shutil.which", lambda _name: None)
    monkeypatch.setattr("bench.peer.sys.executable", str(tmp_path / "no-python"))
    with pytest.raises(PeerMissingError, match="no-python"):
        python_command("absent")


@pytest.mark.parametrize("name", ["quix", "bytewax"])
def test_requirements_of_peers_are_pinned(name: str) -> None:
    lines = (PEERS / name / "requirements.txt").read_text().split()
    assert lines
    assert all("==" in line for line in lines)


def test_jars_are_pinned_by_hash() -> None:
    jars = locked_jars()
    assert any(coordinate.startswith("org.apache.kafka:kafka-streams:") for coordinate in jars)
    assert all(len(sha256) == 64 for sha256 in jars.values())


def test_slope_is_bytes_an_attempt() -> None:
    assert slope({1: 1_100.0, 5: 1_500.0, 10: 2_000.0}, 10) == pytest.approx(10.0)
