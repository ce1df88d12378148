"""PostgreSQL goes away for minutes while attempts come in: ``make outage MINUTES=5 RATE=5000``.

A pipeline of its own (one engine, one sink, one calibrator) takes attempts at a steady rate, for
a while with PostgreSQL, then without, then with it again. Measured are the memory of each role
before, during and after, and lookups beside it. When all has drained, every row is compared with
an independent computation, as ``make chaos`` does. Ends with 1 on any difference.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import psutil

from bench.chaos.check import check_all
from bench.chaos.cluster import Cluster, Member, wait_for
from bench.chaos.progress import unfinished
from bench.chaos.trial import Trial, TrialConfig
from bench.pipeline import RESULTS
from stream.local.stack import running_stack

__all__ = ["Watch", "run"]

_LEARNERS = 5_000
_AROUND_S = 30.0
"""Seconds with PostgreSQL before it goes, and attempts after it is back."""

_DRAIN_S = 3600.0


class Watch:
    """Notes the memory of each role and the health of each process, once a second.

    Parameters
    ----------
    cluster
        The processes.

    Attributes
    ----------
    phase
        What is going on now; peaks are kept by phase.
    peaks
        (role, phase) -> largest resident memory, MiB.
    readiness
        (role, phase) -> statuses seen on /readyz.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.phase = "before"
        self.peaks: defaultdict[tuple[str, str], float] = defaultdict(float)
        self.readiness: defaultdict[tuple[str, str], set[int | None]] = defaultdict(set)
        self._cluster = cluster
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="outage-watch")

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    def by_role(self) -> dict[str, dict[str, float]]:
        """Return role -> phase -> peak of memory, MiB."""
        found: defaultdict[str, dict[str, float]] = defaultdict(dict)
        for (role, phase), peak in self.peaks.items():
            found[role][phase] = round(peak, 1)
        return dict(found)

    def _watch(self) -> None:
        while not self._ending.wait(1.0):
            for member in self._cluster.members:
                self._note(member)

    def _note(self, member: Member) -> None:
        pid = member.pid
        if pid is None:
            return
        try:
            resident = psutil.Process(pid).memory_info().rss / 2**20
        except psutil.NoSuchProcess:
            return
        key = member.role, self.phase
        self.peaks[key] = max(self.peaks[key], resident)
        self.readiness[key].add(member.status("/readyz"))


def run(minutes: float, rate: float, directory: Path) -> dict[str, Any]:
    """Do it all.

    Parameters
    ----------
    minutes
        How long PostgreSQL is away.
    rate
        Attempts a second.
    directory
        For the stack, logs and files.

    Returns
    -------
    dict
        What ``bench/results/outage.json`` holds.
    """
    away_s = minutes * 60
    config = TrialConfig(
        "outage",
        (),
        seed=1,
        fixed_params=True,
        rate=rate,
        round_records=round(rate * (away_s + 2 * _AROUND_S)),
        learners=_LEARNERS,
        items=200,
    )
    with running_stack(directory / "stack", parts=("kafka", "postgres")) as stack:
        trial = Trial(stack, config, directory / "trial")
        with trial.running(engines=1, sinks=1) as cluster, Watch(cluster) as watch:
            engine = cluster.role("engine")[0]
            began = time.monotonic()
            trial.replay.start(trial.workload.records)
            time.sleep(_AROUND_S / 3)  # until some learners are known
            learners = trial.known_learners(trial.replay.sent // 2, 1000)
            lookups = {"before": _lookups(engine, learners, _AROUND_S * 2 / 3)}
            stack.postgres.kill()
            watch.phase = "during"
            print(f"PostgreSQL is away for {minutes:g} minutes", flush=True)
            lookups["during"] = _lookups(engine, learners, away_s)
            stack.postgres.start()
            back_at = time.monotonic()
            watch.phase = "after"
            trial.replay.join()
            sent_s = time.monotonic() - began
            trial.replay.finish(60)
            wait_for(
                "everything to be in PostgreSQL",
                lambda: not unfinished(trial.settings),
                _DRAIN_S,
                cluster.tails,
                poll_s=2.0,
            )
            drained_s = time.monotonic() - back_at
            with trial.expected() as expected:
                report = check_all(trial.settings, expected)
        records = len(trial.workload.records)
        problems = [*report.examples, *cluster.violations, *trial.replay.failures]
        during = watch.readiness["sink", "during"]
        if 503 not in during:
            problems.append(f"/readyz of the sink said {during} while PostgreSQL was away")
        if lookups["during"]["answers"].keys() != {"200"}:
            problems.append(f"lookups while PostgreSQL was away: {lookups['during']['answers']}")
        return {
            "minutes": minutes,
            "records": records,
            "asked_events_per_s": rate,
            "events_per_s": round(records / sent_s),
            # Of everything on the machine: lookups suffer from neighbours.
            "load_average": round(os.getloadavg()[1], 1),
            "peak_rss_mib": watch.by_role(),
            "lookups": lookups,
            "drained_after_s": round(drained_s, 1),
            "rows_compared": dict(report.compared),
            "differences": report.total,
            "problems": problems,
        }


def _lookups(engine: Member, learners: list[str], seconds: float) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "bench.outage_lookups", engine.url, str(seconds)],
        input=json.dumps(learners),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> int:
    """Run, print, and write ``bench/results/outage.json``."""
    parser = argparse.ArgumentParser(prog="python -m bench.outage", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="without PostgreSQL")
    parser.add_argument("--rate", type=float, default=5000.0, help="attempts a second")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="thetastream-outage-"))
    # As root, PostgreSQL runs under another account, which has to get in.
    directory.chmod(0o711)
    result = run(options.minutes, options.rate, directory)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "outage.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    if result["problems"]:
        print(f"{len(result['problems'])} PROBLEMS; logs are kept in {directory}")
        return 1
    shutil.rmtree(directory, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
