"""The table, the differences and the JSON file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from _conformance.compare import UNFINISHED, Difference, ModuleRun

Runs = Mapping[str, Mapping[str, Sequence[ModuleRun]]]  # module → side → its runs, the first one first
Findings = Mapping[str, Mapping[str, Sequence[Difference]]]  # module → side other than bare → what differs

DETAIL_LINES = 14


def table(runs: Runs, findings: Findings) -> list[str]:
    """Return one line a module: the bare counts, and per side `same` or how much differs."""
    sides = list(next(iter(findings.values()), {}))
    width = max((len(_short(module)) for module in runs), default=0)
    head = f"{'module':<{width}}  {'tests':>5} {'pass':>5} {'fail':>5} {'skip':>5} {'s':>6}"
    lines = [head + "".join(f"  {side:<22}" for side in sides).rstrip()]
    for module in sorted(runs):
        bare = runs[module]["bare"][0]
        line = (
            f"{_short(module):<{width}}  {len(bare.outcomes):>5} {bare.count('pass', 'expected failure'):>5} "
            f"{_failures(bare):>5} {bare.count('skip'):>5} {bare.seconds:>6.1f}"
        )
        lines.append(line + "".join(f"  {_verdict(findings[module][side]):<22}" for side in sides).rstrip())
    bares = [runs[module]["bare"][0] for module in runs]
    total = (
        f"{'all':<{width}}  {sum(len(run.outcomes) for run in bares):>5} "
        f"{sum(run.count('pass', 'expected failure') for run in bares):>5} {sum(map(_failures, bares)):>5} "
        f"{sum(run.count('skip') for run in bares):>5} {sum(run.seconds for run in bares):>6.1f}"
    )
    verdicts = (_verdict([each for module in findings for each in findings[module][side]]) for side in sides)
    return [*lines, total + "".join(f"  {verdict:<22}" for verdict in verdicts).rstrip()]


def progress(place: str, module: str, side: str, run: ModuleRun, total_s: float) -> str:
    """Return the line that tells of a run as soon as it is over, and how long all of them have taken."""
    failing = _failures(run)
    words = f"{failing} not passed" if run.is_finished else next(reversed(run.outcomes.values()))
    words = f"{len(run.outcomes)} tests, {words}, {run.seconds:.0f} s"
    minutes, seconds = divmod(round(total_s), 60)
    return f"{minutes}:{seconds:02} {place} {_short(module)}, {side}: {words}"


def still_running(module: str, side: str, done: int, running: str, seconds: float) -> str:
    """Return the line that tells where a long run is."""
    return f"     … {_short(module)}, {side}: {done} done in {seconds:.0f} s, now {_short(running)}"


def explain(findings: Findings) -> list[str]:
    """Return a paragraph for each difference, a line for each that does not count."""
    lines: list[str] = []
    for module in sorted(findings):
        for side, differences in findings[module].items():
            for each in differences:
                word = "flaky" if each.is_flaky else each.excuse or "DIFFERENT"
                lines.append(f"{word}: {each.test}: bare {_row(each.bare)}, {side} {_row(each.other)}")
                if each.counts or each.test.endswith(UNFINISHED):
                    lines.extend(f"    {line}" for line in each.detail.splitlines()[-DETAIL_LINES:])
    return lines


def explain_noise(noises: Mapping[str, str]) -> list[str]:
    """Return a paragraph for each side on which a small program printed something of its own accord."""
    lines: list[str] = []
    for side, noise in noises.items():
        lines.append(f"DIFFERENT: on {side} a small program printed, from start to exit:")
        lines.extend(f"    {line}" for line in noise.splitlines()[-DETAIL_LINES:])
    return lines


def failing_bare(runs: Runs) -> list[str]:
    """Return the tests that fail bare: the machine's or CPython's own trouble, the same on each side."""
    return [
        f"fails bare: {test}: {outcome}"
        for module in sorted(runs)
        for test, outcome in sorted(runs[module]["bare"][0].outcomes.items())
        if outcome not in {"pass", "skip", "expected failure"}
    ]


def count_differences(findings: Findings) -> int:
    """Count what is not the same, flaky tests and what is not our doing left aside."""
    return sum(each.counts for sides in findings.values() for found in sides.values() for each in found)


def as_json(facts: Mapping[str, object], runs: Runs, findings: Findings) -> dict[str, object]:
    """Return everything that was seen, for a program to read."""
    return {
        **facts,
        "modules": {
            module: {
                "sides": {
                    side: [
                        {"seconds": round(run.seconds, 2), "outcomes": run.outcomes} for run in sides[side]
                    ]
                    for side in sides
                },
                "findings": {
                    side: [asdict(each) for each in found] for side, found in findings.get(module, {}).items()
                },
            }
            for module, sides in runs.items()
        },
    }


def _short(module: str) -> str:
    return module.removeprefix("test.")


def _failures(run: ModuleRun) -> int:
    return len(run.outcomes) - run.count("pass", "expected failure", "skip")


def _verdict(differences: Sequence[Difference]) -> str:
    real = sum(each.counts for each in differences)
    flaky = sum(each.is_flaky for each in differences)
    words = [f"{real} different"] if real else ["same"]
    words += [f"{flaky} flaky"] if flaky else []
    excused = len(differences) - real - flaky
    return ", ".join(words + ([f"{excused} not by us"] if excused else []))


def _row(outcomes: Sequence[str]) -> str:
    return "/".join(outcomes)
