"""Celery tasks that end in every way, and write down themselves how; for `test_celery.py`.

    python celery_load.py COUNT SLOW    sends so many, of which some are slow that come in the middle

Each run adds a line to the file RUNS: the number of its task, its id, its try, whether its message had been
delivered before, and how it ended.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from celery import Celery
from celery.exceptions import Ignore, Reject, Retry

WAYS = ("finished", "finished", "failed", "ignored", "rejected", "retried")
"""How the tasks of a load end, in turn."""

TRIES = 3
"""Of a task that is retried; the last one fails."""

SLOW = 2.0
"""Seconds."""

LOST = 1.2
"""Seconds after which the broker takes a message for lost that was not acknowledged."""

RAISED = {"failed": ValueError, "ignored": Ignore, "rejected": Reject}

app = Celery("celery_load", broker=os.environ["REDIS"])
app.conf.update(
    task_acks_late=True,
    task_ignore_result=True,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    # What is asked for while Redis is away waits for it.
    task_publish_retry_policy={
        "max_retries": None,
        "interval_start": 0.1,
        "interval_step": 0.1,
        "interval_max": 0.3,
    },
    broker_transport_options={
        "visibility_timeout": LOST,
        "unacked_restore_interval": 0.5,
        "unacked_restore_throttle": 1,
    },
)


def note(*words: object) -> None:
    """Add a line, as a whole."""
    out = os.open(os.environ["RUNS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(out, (" ".join(map(str, words)) + "\n").encode())
    os.close(out)


@app.task(bind=True)
def work(self: Any, number: int, seconds: float) -> None:
    """Take so long, the first time, and end as the number says."""
    request = self.request
    run = (number, request.id, request.retries, int(bool(request.delivery_info.get("redelivered"))))
    if seconds and not run[-1]:
        note(*run, "begun")
        time.sleep(seconds)
    way = WAYS[number % len(WAYS)]
    if way == "retried" and request.retries == TRIES - 1:
        way = "failed"
    try:
        if way == "retried":
            self.retry(countdown=0.05)
        if way in RAISED:
            raise RAISED[way]("no")
    except Retry:
        note(*run, way)
        raise
    except (Ignore, Reject, ValueError):
        note(*run, way)
        raise
    note(*run, way)


if __name__ == "__main__":
    count, slow = int(sys.argv[1]), int(sys.argv[2])
    slow_ones = range(0, count, len(WAYS))[count // len(WAYS) // 2 :][:slow]  # they finish
    for number in range(count):
        work.delay(number, SLOW if number in slow_ones else 0)
