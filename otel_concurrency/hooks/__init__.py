"""Where we attach to the runtime, and how we let go; a file a primitive.

    loops/      Event loops: their time, their exceptions, their stalls, and the thread that watches them.
    tasks/      asyncio's tasks: made, cancelled, created by whom.
    failures/   What Python itself gave up on: noticed once, where it shows.
    threads/    Threads and their pools, AnyIO's among them.
    processes/  Processes: pools of them, children, programs that are started.
    ending/     The end of the process, and signals that bring it.
    waits/      Where tasks wait for each other: locks and queues of asyncio and AnyIO.
    pools/      Where requests wait for a connection: databases, Redis, HTTP clients.
    trio/       What trio has of its own: tasks, loops, threads, locks.
    services/   What a service serves: requests of web frameworks, tasks of Celery.
    logs/       Log records on their way to OpenTelemetry, and what exporters log.
    runtime/    The interpreter itself: garbage collection, and what upstream measures of the system.

A new hook goes into the room of what it attaches to. What all of them use stands beside the rooms: `patch`
and `late_patch` (the only ways in and out), `imports` (a word when the program imports a library), `rebound`
(a way into one call that a function makes), `attaching`, `fork`, `interpreters`, `weak_ids`.
"""
