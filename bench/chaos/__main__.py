"""``make chaos``: rounds of faults, then everything compared; exit 1 on any difference."""

from __future__ import annotations

import argparse
import json
import logging
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.chaos.cluster import HangError
from bench.chaos.faults import FAULTS, schedule
from bench.chaos.trial import Trial, TrialConfig
from bench.pipeline import RESULTS
from stream.errors import StreamError
from stream.local.stack import running_stack


def main() -> int:
    """Run the trials, print a line a round and a summary, write the result as JSON."""
    options = _options()
    began = time.monotonic()
    directory = Path(tempfile.mkdtemp(prefix="thetastream-chaos-"))
    directory.chmod(0o711)
    # What the Kafka clients say of a broker that is away goes beside the processes' logs.
    logging.basicConfig(filename=directory / "chaos.log", level="INFO")
    logging.getLogger("httpx").setLevel("WARNING")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    kinds = options.kinds or schedule(options.rounds, random.Random(options.seed))
    half = (len(kinds) + 1) // 2
    # Each half has every kind: a whole cycle comes before the next begins.
    parts = [("fixed", True, kinds[:half]), ("live", False, kinds[half:])]
    print(f"chaos: {len(kinds)} rounds, seed {options.seed}; logs in {directory}", flush=True)
    result: dict[str, Any] = {"rounds": [], "comparisons": {}, "problems": []}
    try:
        with running_stack(directory / "stack") as stack:
            for number, (name, fixed, chosen) in enumerate(parts):
                if not chosen:
                    continue
                config = TrialConfig(
                    name,
                    chosen,
                    options.seed + number,
                    fixed,
                    rate=options.rate,
                    round_records=options.round_records,
                )
                trial = Trial(stack, config, directory / name, lambda line: print(line, flush=True))
                try:
                    report, violations = trial.run(len(result["rounds"]) + 1)
                finally:
                    result["rounds"] += [vars(one) for one in trial.rounds]
                result["comparisons"][name] = {
                    check: {"expected": report.compared[check], "differences": count}
                    for check, count in report.differences.items()
                }
                result["problems"] += [*report.examples, *violations]
                result["records"] = result.get("records", 0) + len(trial.workload.records)
    except (HangError, StreamError) as error:
        result["problems"].append(f"{type(error).__name__}: {error}")
    result["ok"] = not result["problems"] and bool(result["comparisons"])
    result["seed"] = options.seed
    result["seconds"] = round(time.monotonic() - began, 1)
    _print_summary(result)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "chaos.json").write_text(json.dumps(result, indent=2, default=str) + "\n")
    if result["ok"] and not options.keep:
        shutil.rmtree(directory, ignore_errors=True)
    else:
        print(f"logs are kept in {directory}")
    return 0 if result["ok"] else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.chaos", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="faults; 20 has each kind twice")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=2000.0, help="records a second")
    parser.add_argument("--round-records", type=int, default=20_000, help="records sent a round")
    parser.add_argument("--kinds", nargs="+", choices=list(FAULTS), help="these faults, in order")
    parser.add_argument("--keep", action="store_true", help="keep the logs")
    return parser.parse_args()


def _print_summary(result: dict[str, Any]) -> None:
    print()
    for name, checks in result["comparisons"].items():
        for check, numbers in checks.items():
            print(
                f"{name:6s} {check:30s} {numbers['expected']:9,d} expected "
                f"{numbers['differences']:6,d} differences"
            )
    for problem in result["problems"]:
        print(f"PROBLEM {problem}\n")
    recoveries = [one["recovery_s"] for one in result["rounds"]]
    if recoveries:
        print(
            f"{len(recoveries)} rounds, {result.get('records', 0):,} records compared, recovery "
            f"{sum(recoveries) / len(recoveries):.1f} s on average, {max(recoveries):.1f} s at most"
        )
    verdict = "exact: no difference" if result["ok"] else f"{len(result['problems'])} PROBLEMS"
    print(f"{verdict}; {result['seconds']:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
