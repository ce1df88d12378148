"""``thetastream tag-anchors``: choose the items that hold the scale."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated

import typer
from rich.console import Console

from stream.calibration.anchor_tags import AnchorPlan, tag_anchors
from stream.settings import Settings

__all__ = ["tag_anchors_command"]


def tag_anchors_command(
    max_candidates: Annotated[
        int, typer.Option(min=1, help="Most anchors, those tagged before included.")
    ] = 50,
    prune: Annotated[
        bool, typer.Option("--prune", help="Take the tag from items that are no longer fit.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would change and why; write nothing.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON for a program to read.")
    ] = False,
) -> None:
    """Tag the items that are fit to hold the scale as anchors, in question.meta.

    Fit is a calibrated item with 100 responses or more, |b| <= 2, a >= .5, and a standard
    deviation of b of at most .5 over at least two recent calibrations. Tagged items that are fit
    stay; others are added, spread over the difficulties. Other tags and keys are left alone.
    Exit code: 0 done, 1 no item is calibrated yet or the database cannot be used.

    Examples:

        thetastream tag-anchors --dry-run

        thetastream tag-anchors --max-candidates 30 --prune
    """
    settings = Settings.from_env()
    plan = asyncio.run(tag_anchors(settings, max_candidates, prune=prune, dry_run=dry_run))
    if as_json:
        print(json.dumps(_shown(plan, dry_run=dry_run), indent=2))
    else:
        for line in _lines(plan, dry_run=dry_run):
            Console(soft_wrap=True).print(line, highlight=False, markup=False)
    if not (plan.added or plan.kept or plan.removed or plan.spare or plan.unfit):
        raise typer.Exit(1)


def _shown(plan: AnchorPlan, *, dry_run: bool) -> dict[str, object]:
    return {
        "dry_run": dry_run,
        "added": {item: params._asdict() for item, params in plan.added.items()},
        "kept": plan.kept,
        "removed": plan.removed,
        "spare": plan.spare,
        "unfit": plan.unfit,
    }


def _lines(plan: AnchorPlan, *, dry_run: bool) -> list[str]:
    lines = [
        f"+ {item}: a {params.a:.2f}, b {params.b:+.2f}" for item, params in plan.added.items()
    ]
    lines += [f"- {item}: {'; '.join(plan.unfit[item])}" for item in plan.removed]
    for item, reasons in plan.unfit.items():
        if item in plan.kept:
            lines.append(f"! {item} is tagged but unfit (--prune): {'; '.join(reasons)}")
        elif dry_run and item not in plan.removed:
            lines.append(f"  {item} is unfit: {'; '.join(reasons)}")
    if not (plan.added or plan.kept or plan.removed or plan.spare or plan.unfit):
        return ["No item is calibrated yet, so there is no anchor to choose; nothing was changed."]
    would = "would be " if dry_run else ""
    return [
        *lines,
        f"{len(plan.added)} items {would}tagged, {len(plan.removed)} {would}untagged, "
        f"{len(plan.kept)} stay; {len(plan.spare)} more are fit, {len(plan.unfit)} are not.",
    ]
