/* What tasks wait for inside of a step's end: a lock, a queue. Whoever is about to wait says so in its step; the task's
   next step is the end of it, so a wait costs one entry in a table, by the task, and nothing on any other path. */

#ifndef OTEL_CONCURRENCY_WAITS_H
#define OTEL_CONCURRENCY_WAITS_H

typedef struct Wait {
    Live *live; /* the key; NULL: a free place */
    int64_t began_ns;
    int row;
} Wait;

/* The number of a row: that of its name, and below it the kind. probes/waits.py has the same. */
#define KIND_BITS 4
#define LAST_LOCK_KIND 2 /* a request says how long it waited for locks, semaphores and conditions */

static void account_wait_lock(Live *live, int64_t ns); /* account.h */

static inline size_t
wait_home(TaskProbe *probe, Live *live)
{
    return pointer_hash(live) & probe->wait_mask;
}

static void
wait_place(TaskProbe *probe, Wait wait)
{
    size_t place = wait_home(probe, wait.live);
    while (probe->waits[place].live != NULL) {
        place = (place + 1) & probe->wait_mask;
    }
    probe->waits[place] = wait;
}

static int
waits_grow(TaskProbe *probe)
{
    size_t before_size = probe->waits != NULL ? probe->wait_mask + 1 : 0;
    size_t size = before_size != 0 ? before_size * 2 : 64;
    Wait *before = probe->waits;
    Wait *waits = PyMem_Calloc(size, sizeof(Wait));
    if (waits == NULL) {
        return -1;
    }
    probe->waits = waits;
    probe->wait_mask = size - 1;
    for (size_t i = 0; i < before_size; i++) {
        if (before[i].live != NULL) {
            wait_place(probe, before[i]);
        }
    }
    PyMem_Free(before);
    return 0;
}

/* Find what a task waits for. Only for one whose bit is set. */
static size_t
wait_find(TaskProbe *probe, Live *live)
{
    size_t place = wait_home(probe, live);
    while (probe->waits[place].live != live) {
        place = (place + 1) & probe->wait_mask;
    }
    return place;
}

/* Take it out of the table; deletion by shifting back. */
static Wait
wait_take(TaskProbe *probe, Live *live)
{
    size_t hole = wait_find(probe, live);
    Wait taken = probe->waits[hole];
    for (size_t next = (hole + 1) & probe->wait_mask; probe->waits[next].live != NULL;
         next = (next + 1) & probe->wait_mask) {
        size_t home = wait_home(probe, probe->waits[next].live);
        if (((next - home) & probe->wait_mask) >= ((next - hole) & probe->wait_mask)) {
            probe->waits[hole] = probe->waits[next];
            hole = next;
        }
    }
    probe->waits[hole].live = NULL;
    probe->wait_count--;
    live->waits = 0;
    probe->wait_rows[taken.row].waiting--;
    return taken;
}

/* Have rows up to this one. They move: nobody keeps the address of one. */
static int
wait_rows_reach(TaskProbe *probe, int row)
{
    if (row < probe->wait_row_count) {
        return 0;
    }
    int count = (row | ((1 << KIND_BITS) - 1)) + 1;
    WaitRow *rows = PyMem_Realloc(probe->wait_rows, (size_t)count * sizeof(WaitRow));
    if (rows == NULL) {
        return -1;
    }
    memset(rows + probe->wait_row_count, 0, (size_t)(count - probe->wait_row_count) * sizeof(WaitRow));
    probe->wait_rows = rows;
    probe->wait_row_count = count;
    return 0;
}

static NEVER_INLINE void wait_end(Live *live, int64_t now_ns);

/* A task is about to wait, at the end of the step that runs now. */
static void
wait_begin(TaskProbe *probe, Live *live, int row, int64_t step_began_ns, int64_t now_ns)
{
    if (live->waits) {
        wait_end(live, step_began_ns);
    }
    if (live->waits) {
        (void)wait_take(probe, live); /* it began in this step, so it did not, after all */
    }
    if (wait_rows_reach(probe, row) < 0) {
        probe->lost++;
        return;
    }
    if ((probe->waits == NULL || probe->wait_count * 2 > probe->wait_mask) && waits_grow(probe) < 0) {
        probe->lost++;
        return;
    }
    wait_place(probe, (Wait){.live = live, .began_ns = now_ns, .row = row});
    probe->wait_count++;
    live->waits = 1;
    probe->wait_rows[row].waiting++;
    probe->wait_rows[row].contentions++;
}

/* A step of it has begun. The watcher tells of that when the step ends: a wait that began in there has just begun. */
static NEVER_INLINE void
wait_end(Live *live, int64_t now_ns)
{
    TaskProbe *probe = live->row->probe;
    if (probe->waits[wait_find(probe, live)].began_ns >= now_ns) {
        return;
    }
    Wait wait = wait_take(probe, live);
    WaitRow *row = &probe->wait_rows[wait.row];
    int64_t ns = now_ns - wait.began_ns;
    row->wait_ns += ns;
    (void)histogram_observe(&row->durations, &probe->buckets, ns);
    if ((live->has_told | live->is_owner) && (wait.row & ((1 << KIND_BITS) - 1)) <= LAST_LOCK_KIND) {
        account_wait_lock(live, ns);
    }
}

/* There is none any more. */
static void
wait_forget(Live *live)
{
    (void)wait_take(live->row->probe, live);
}

static void
waits_free(TaskProbe *probe)
{
    PyMem_Free(probe->waits);
    probe->waits = NULL;
    probe->wait_mask = probe->wait_count = 0;
    for (int i = 0; i < probe->wait_row_count; i++) {
        histogram_free(&probe->wait_rows[i].durations);
    }
    PyMem_Free(probe->wait_rows);
    probe->wait_rows = NULL;
    probe->wait_row_count = 0;
}

#endif
