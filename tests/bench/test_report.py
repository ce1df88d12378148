import json
from pathlib import Path
from xml.etree import ElementTree

from bench.meter import Figure, Measured
from bench.report import chart, print_table, ratio, write_results


def figure(engine: str, rate: float, learners: int = 20) -> Figure:
    return Figure(
        engine=engine,
        job="whole" if engine.startswith("thetastream") else "small",
        learners=learners,
        events=1_000,
        events_per_s=rate,
        cpu_s_per_million=10.0,
        peak_rss_mib=100.0,
        version="1",
    )


FIGURES = [
    figure("thetastream", 60_000),
    figure("thetastream, 2 processes", 90_000),
    figure("Quix <&> Streams", 30_000),
    figure("thetastream", 20_000, learners=50),
    figure("Quix <&> Streams", 40_000, learners=50),
]


def test_rates_follow_from_what_was_measured() -> None:
    made = Figure.of(
        Measured(seconds=2.0, cpu_s=3.0, peak_rss_mib=50.04),
        100_000,
        engine="e",
        job="small",
        learners=7,
        version="1",
    )
    assert made.events_per_s == 50_000
    assert made.cpu_s_per_million == 30.0
    assert made.peak_rss_mib == 50.0
    assert made.processes == 1


def test_ratio_compares_one_process_of_ours_on_the_same_population() -> None:
    assert ratio(FIGURES, FIGURES[2]) == 2.0
    assert ratio(FIGURES, FIGURES[4]) == 0.5
    assert ratio(FIGURES, FIGURES[0]) is None


def test_there_is_no_ratio_without_our_own_figure() -> None:
    assert ratio(FIGURES[2:3], FIGURES[2]) is None


def test_results_are_a_list_with_the_promised_keys(tmp_path: Path) -> None:
    write_results(FIGURES, tmp_path)
    lines = json.loads((tmp_path / "latest.json").read_text())
    assert len(lines) == len(FIGURES)
    for line in lines:
        assert line.keys() >= {
            "engine", "job", "learners", "events_per_s", "cpu_s_per_million", "peak_rss_mib",
        }  # fmt: skip
    assert "cpu_s_each" not in lines[0]


def test_chart_is_valid_svg_with_a_bar_and_a_ratio_an_engine() -> None:
    drawing = chart(FIGURES)
    root = ElementTree.fromstring(drawing)
    assert len(root.findall("{http://www.w3.org/2000/svg}rect")) == len(FIGURES)
    assert "30,000  (2.00x)" in drawing
    assert "40,000  (0.50x)" in drawing


def test_a_missing_engine_is_named_in_the_table(capsys) -> None:  # type: ignore[no-untyped-def]
    print_table(FIGURES, ["Bytewax is missing: no wheel for this Python"])
    assert "Bytewax is missing: no wheel for this Python" in capsys.readouterr().out
