"""The post room: mails receipts, one Celery task each, in worker processes of its own.

Only with a broker (`--broker redis://…`); without one the storefront mails them itself.

What the console shows of it (service `receipts`):

- `receipts.mail`, once for each order that was paid, in the trace of its checkout.
- How long a receipt waits in the queue while the worker's processes are all busy.
"""

from __future__ import annotations

import logging
import time

from celery import Celery

log = logging.getLogger("shop.receipts")
app = Celery("receipts")
app.conf.update(task_ignore_result=True, broker_connection_retry_on_startup=True)


@app.task(name="receipts.mail")
def mail(number: int, total: int) -> None:
    """Mail the receipt of an order; the mail server needs a moment."""
    time.sleep(0.02)
    log.info("order %d: receipt over %d mailed", number, total)


def work(processes: int) -> None:
    """Run a worker until a signal says to stop."""
    app.worker_main(["worker", f"--concurrency={processes}", "--loglevel=INFO", "--without-gossip"])
