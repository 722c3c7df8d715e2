"""The rules in their order: a higher one explains away lower ones, which then are not told.

Rule 15 stands out: a cycle of tasks explains why a lock that is in it is waited for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from otel_concurrency.diagnosis import flow_rules, lifetime_rules, loop_rules, resource_rules, supply_rules
from otel_concurrency.diagnosis.evidence import PROCESS
from otel_concurrency.diagnosis.finding import SEVERITIES, Finding
from otel_concurrency.diagnosis.window import Window

_LOOP = ("loop_blocked_io", "loop_cpu_bound", "never_yielded")
_SLOW = ("granularity_imbalance", "io_wait")


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule.

    Attributes:
        name: What its findings are called.
        check: Returns a finding for each thing that it finds wrong.
        explains: Rules whose findings it explains away: about the same thing, or where either of them is
            about the whole process.
    """

    name: str
    check: Callable[[Window, tuple[Window, ...]], list[Finding]]
    explains: tuple[str, ...] = ()


RULES = (
    Rule(
        "cpu_starvation",
        supply_rules.cpu_starvation,
        ("gil_held_by_native", "gil_contention", *_LOOP, *_SLOW),
    ),
    Rule("gil_held_by_native", supply_rules.gil_held_by_native, ("gil_contention", *_LOOP, *_SLOW)),
    Rule("gil_contention", supply_rules.gil_contention, (*_LOOP, *_SLOW)),
    Rule("gc_pauses", supply_rules.gc_pauses, ("never_yielded", "loop_cpu_bound", *_SLOW)),
    Rule("loop_blocked_io", loop_rules.loop_blocked_io, ("never_yielded", *_SLOW)),
    Rule("spin", loop_rules.spin, ("loop_cpu_bound", "never_yielded")),
    Rule("loop_cpu_bound", loop_rules.loop_cpu_bound, ("never_yielded", *_SLOW)),
    Rule("pool_exhausted", resource_rules.pool_exhausted, ("io_wait",)),
    Rule("executor_saturated", resource_rules.executor_saturated, ("granularity_imbalance", "io_wait")),
    Rule("lock_contention", resource_rules.lock_contention, ("io_wait",)),
    Rule("granularity_imbalance", flow_rules.granularity_imbalance),
    Rule("io_wait", flow_rules.io_wait),
    Rule("task_leak", lifetime_rules.task_leak),
    Rule("never_yielded", loop_rules.never_yielded),
    Rule("deadlock", lifetime_rules.deadlock, ("lock_contention",)),
    Rule("cancel_ignored", lifetime_rules.cancel_ignored),
    Rule("errors_swallowed", lifetime_rules.errors_swallowed),
    Rule("fork_with_threads", lifetime_rules.fork_with_threads),
)
"""All of them; rule 1 comes first."""

ORDER = {rule.name: number for number, rule in enumerate(RULES, 1)}


def judge(window: Window, history: Sequence[Window] = ()) -> list[Finding]:
    """Return what is wrong, what higher rules explain left out.

    Args:
        window: The last one.
        history: Those before it, the oldest first.
    """
    past = tuple(history)
    findings = [found for rule in RULES for found in rule.check(window, past)]
    return explained(
        [
            replace(found, began_unix_ns=window.began_unix_ns, seen_unix_ns=window.ended_unix_ns)
            for found in findings
        ]
    )


def explained(findings: Sequence[Finding]) -> list[Finding]:
    """Leave out what others explain, and note that with them."""
    kept: list[Finding] = []
    gone: dict[int, list[str]] = {}
    for found in findings:
        by = next((each for each in findings if _explains(each, found)), None)
        if by is None:
            kept.append(found)
        else:
            gone.setdefault(id(by), []).append(found.rule)
    return [replace(each, suppressed=tuple(dict.fromkeys(gone.get(id(each), ())))) for each in kept]


def _explains(one: Finding, other: Finding) -> bool:
    if one is other or other.rule not in RULES[ORDER[one.rule] - 1].explains:
        return False
    return (
        PROCESS in (one.subject, other.subject)
        or one.subject == other.subject
        or one.rule == "deadlock"
        or other.rule == "granularity_imbalance"
    )


def in_order(findings: Sequence[Finding]) -> list[Finding]:
    """Return the weightiest first, and of the same weight the higher rule."""
    return sorted(
        findings, key=lambda each: (-SEVERITIES.index(each.severity), ORDER[each.rule], each.subject)
    )
