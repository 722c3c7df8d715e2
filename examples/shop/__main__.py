"""Runs one program of the shop: `python examples/shop storefront`, `… warehouse`, `… worker`, or `… traffic`.

A service prints one line when it takes connections (`storefront listening on http://127.0.0.1:8000`),
ends in order on SIGTERM and SIGINT, and uses uvloop where it is installed. With `--port 0` it takes a
free port. `--broker` (Redis, Celery) and `--database` (PostgreSQL, asyncpg) are optional; without them a
service keeps to itself.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import logging
import socket

import uvicorn


def main() -> None:
    """Read the command line and run the program it names."""
    parser = argparse.ArgumentParser(prog="python examples/shop", description=__doc__.splitlines()[0])
    programs = parser.add_subparsers(dest="program", required=True)
    service = argparse.ArgumentParser(add_help=False)
    service.add_argument("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    storefront = programs.add_parser("storefront", parents=[service], help="takes orders")
    storefront.add_argument("--port", type=int, default=8000)
    storefront.add_argument("--warehouse", default="http://127.0.0.1:8001", help="URL of the warehouse")
    storefront.add_argument("--broker", help="URL of the Redis through which workers get receipts to mail")
    warehouse = programs.add_parser("warehouse", parents=[service], help="puts items aside")
    warehouse.add_argument("--port", type=int, default=8001)
    warehouse.add_argument("--database", help="URL of the PostgreSQL that counts the stock")
    worker = programs.add_parser("worker", help="mails receipts: a Celery worker")
    worker.add_argument("--broker", default="redis://127.0.0.1:6379/0", help="default %(default)s")
    worker.add_argument("--processes", type=int, default=2)
    traffic = programs.add_parser("traffic", help="sends requests and prints what it did as JSON")
    traffic.add_argument("--url", default="http://127.0.0.1:8000", help="URL of the storefront")
    traffic.add_argument("--requests", type=int, default=60)
    traffic.add_argument("--concurrency", type=int, default=4)
    options = parser.parse_args()

    if options.program == "traffic":
        from traffic import drive  # nobody else needs it

        done = asyncio.run(drive(options.url, requests=options.requests, concurrency=options.concurrency))
        print(json.dumps(done.as_dict(), indent=2))
        return
    if options.program == "worker":
        import receipts  # the only program that needs Celery in any case

        receipts.app.conf.broker_url = options.broker
        receipts.work(options.processes)
        return
    # By name, not as __main__: so its coroutines are called `storefront.place_order` wherever they are seen.
    app = importlib.import_module(options.program).app
    if options.program == "storefront":
        app.state.warehouse_url = options.warehouse
        app.state.broker_url = options.broker
    if options.program == "warehouse":
        app.state.database_url = options.database
    serve(app, options.program, options.host, options.port)


def serve(app: object, name: str, host: str, port: int) -> None:
    """Serve an application until a signal says to stop."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    with socket.create_server((host, port)) as listener:
        print(f"{name} listening on http://{host}:{listener.getsockname()[1]}", flush=True)
        config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=5)
        try:
            uvicorn.Server(config).run(sockets=[listener])
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main()
