/* The live tasks of each loop, and what a step and an end add to the rows. */

#ifndef OTEL_CONCURRENCY_TASKS_H
#define OTEL_CONCURRENCY_TASKS_H

/* --- loops --- */

static PyObject *
reference_target(PyObject *reference)
{
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *target = NULL;
    if (PyWeakref_GetRef(reference, &target) < 0) {
        PyErr_Clear();
    }
    Py_XDECREF(target); /* only compared, never used */
    return target;
#else
    PyObject *target = PyWeakref_GET_OBJECT(reference);
    return target == Py_None ? NULL : target;
#endif
}

#include "task_spans.h"

static const char *
loop_type(PyObject *loop)
{
    /* The class, or the nearest base that says where it comes from: uvicorn and tests subclass loops. */
    PyObject *mro = Py_TYPE(loop)->tp_mro;
    for (Py_ssize_t i = 0; mro != NULL && i < PyTuple_GET_SIZE(mro); i++) {
        PyObject *module = PyObject_GetAttrString(PyTuple_GET_ITEM(mro, i), "__module__");
        const char *text = module != NULL && PyUnicode_Check(module) ? PyUnicode_AsUTF8(module) : NULL;
        const char *type = NULL;
        if (text != NULL) {
            type = strcmp(text, "uvloop") == 0 || strncmp(text, "uvloop.", 7) == 0       ? "uvloop"
                   : strcmp(text, "winloop") == 0 || strncmp(text, "winloop.", 8) == 0 ? "winloop"
                   : strncmp(text, "trio.", 5) == 0                                    ? "trio"
                   : strcmp(text, "asyncio.selector_events") == 0                      ? "selector"
                   : strcmp(text, "asyncio.proactor_events") == 0                      ? "proactor"
                                                                                       : NULL;
        }
        Py_XDECREF(module);
        PyErr_Clear();
        if (type != NULL) {
            return type;
        }
    }
    return "other";
}

static int
loop_is_free(Loop *row)
{
    return row->reference == NULL || (row->oldest == NULL && reference_target(row->reference) == NULL);
}

#define LOOP_ID_UNTOLD (-1)

/* The id that the whole process knows a loop by; MAX_LOOPS beyond the limit. */
static int
loop_id_told(TaskProbe *probe, PyObject *loop)
{
    if (probe->loop_ids == NULL) {
        return LOOP_ID_UNTOLD;
    }
    int id = MAX_LOOPS;
    PyObject *told = PyObject_CallOneArg(probe->loop_ids, loop);
    if (told != NULL && PyTuple_Check(told) && PyTuple_GET_SIZE(told) == 2
        && PyLong_Check(PyTuple_GET_ITEM(told, 0))) {
        long value = PyLong_AsLong(PyTuple_GET_ITEM(told, 0));
        id = value >= 0 && value < MAX_LOOPS ? (int)value : MAX_LOOPS;
    }
    Py_XDECREF(told);
    PyErr_Clear();
    return id;
}

static uint8_t
loop_index(TaskProbe *probe, PyObject *loop)
{
    for (int i = 0; i < MAX_LOOPS; i++) {
        Loop *row = &probe->loops[i];
        if (row->loop == loop && row->reference != NULL && reference_target(row->reference) == loop) {
            return (uint8_t)i;
        }
    }
    PyObject *reference = PyWeakref_NewRef(loop, NULL);
    if (reference == NULL) {
        PyErr_Clear();
        return MAX_LOOPS;
    }
    const char *type = loop_type(loop);
    int told = loop_id_told(probe, loop);
    for (int i = 0; i < MAX_LOOPS; i++) {
        Loop *row = &probe->loops[i];
        if (told != LOOP_ID_UNTOLD && i != told) {
            continue;
        }
        if (row->loop == loop && row->reference != NULL && reference_target(row->reference) == loop) {
            Py_DECREF(reference); /* telling ran a collection, and that this too */
            return (uint8_t)i;
        }
        if (loop_is_free(row)) {
            PyObject *before = row->reference;
            row->reference = reference;
            row->loop = loop;
            row->type = type;
            Py_XDECREF(before);
            return (uint8_t)i;
        }
    }
    Py_DECREF(reference);
    return MAX_LOOPS;
}

#include "waits.h"

/* --- tasks --- */

static ALWAYS_INLINE void
live_set_state(Live *live, State state)
{
    Loop *loop = &live->row->probe->loops[live->loop];
    loop->states[live->state]--;
    loop->states[state]++;
    live->state = (uint8_t)state;
}

/* A task exists: count it, and list it as the newest of its loop. */
static void
live_count(Live *live)
{
    Loop *loop = &live->row->probe->loops[live->loop];
    live->counted = 1;
    live->row->created++;
    if (live->has_told) {
        account_add_task(live_told(live)->account);
    }
    loop->states[live->state]++;
    live->newer = NULL;
    live->older = loop->newest;
    if (loop->newest != NULL) {
        loop->newest->newer = live;
    }
    else {
        loop->oldest = live;
    }
    loop->newest = live;
}

static void
live_unlist(Live *live)
{
    Loop *loop = &live->row->probe->loops[live->loop];
    loop->states[live->state]--;
    if (live->older != NULL) {
        live->older->newer = live->newer;
    }
    else {
        loop->oldest = live->newer;
    }
    if (live->newer != NULL) {
        live->newer->older = live->older;
    }
    else {
        loop->newest = live->older;
    }
    live->older = live->newer = NULL;
}

/* What was current where the work was created; `context` is the task's own, NULL for the current one. New, or NULL. */
static PyObject *
row_origin(Row *row, PyObject *context)
{
    PyObject *origin = NULL;
    PyObject *variable = row->probe->origin_var;
    if (variable == NULL) {
        return NULL;
    }
    if (context == NULL) {
        if (PyContextVar_Get(variable, NULL, &origin) < 0) {
            PyErr_Clear();
        }
    }
    else {
        origin = PyObject_CallMethodOneArg(context, row->probe->state->name_get, variable);
        if (origin == NULL) {
            PyErr_Clear();
        }
    }
    if (origin != NULL && (origin == Py_None || (PyDict_Check(origin) && PyDict_GET_SIZE(origin) == 0))) {
        Py_CLEAR(origin);
    }
    return origin;
}

/* Keep an exemplar for what `histogram_observe` asked for. */
static NEVER_INLINE void
row_keep_exemplar(Row *row, Histogram *histogram, int position, int64_t ns, PyObject *context)
{
    PyObject *origin = row_origin(row, context);
    if (origin != NULL) {
        histogram_keep_exemplar(histogram, position, ns, unix_ns(), origin);
    }
    else if (histogram == &row->step_durations) {
        histogram->exemplar_rest = STEPS_AT_REST;
    }
}

static ALWAYS_INLINE void
row_observe(Row *row, Histogram *histogram, int64_t ns, PyObject *context)
{
    int position = histogram_observe(histogram, &row->probe->buckets, ns);
    if (position >= 0) {
        row_keep_exemplar(row, histogram, position, ns, context);
    }
}

/* A step took long: keep who it was, for whoever explains stalls. Rare, so it may cost a microsecond. */
static NEVER_INLINE void
row_note_slow_step(Row *row, int64_t busy_ns, PyObject *context)
{
    TaskProbe *probe = row->probe;
    if (probe->slow_count == MAX_SLOW_STEPS) {
        probe->lost++;
        return;
    }
    PyObject *origin = row_origin(row, context); /* may run a collection, and that more steps */
    if (probe->slow_count == MAX_SLOW_STEPS) {
        Py_XDECREF(origin);
        return;
    }
    SlowStep *step = &probe->slow_steps[probe->slow_count++];
    step->name = Py_NewRef(row->name);
    step->origin = origin;
    step->ident = PyThread_get_thread_ident();
    step->ended_ns = system_monotonic_ns();
    step->busy_ns = busy_ns;
#ifdef CLOCK_THREAD_CPUTIME_ID
    step->cpu_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID);
#else
    step->cpu_ns = -1;
#endif
}

static ALWAYS_INLINE void
live_begin_step(Live *live, int64_t now_ns, PyObject *context)
{
    if (live->steps == 0) {
        if (!live->counted) {
            live_count(live); /* an eager task runs before create_task returns */
        }
        row_observe(live->row, &live->row->start_delays, now_ns - live->created_ns, context);
        if (live->has_told) {
            live_told(live)->start_delay_ns = now_ns - live->created_ns;
            account_add_start(live_told(live)->account, now_ns - live->created_ns);
        }
    }
    else if (live->waits) {
        wait_end(live, now_ns);
    }
    live->steps++;
    live->row->steps++;
    live_set_state(live, RUNNING);
}

/* `outer` is the step that this one is nested in, or NULL. */
static ALWAYS_INLINE void
live_end_step(Live *live, int64_t began_ns, int64_t now_ns, State state, Step *outer, PyObject *context)
{
    int64_t busy_ns = now_ns - began_ns;
    live->row->busy_ns += busy_ns;
    if (live->has_told | live->is_owner) {
        account_step(live, began_ns, now_ns, outer);
    }
    live_set_state(live, state);
    row_observe(live->row, &live->row->step_durations, busy_ns, context);
    if (busy_ns >= live->row->probe->slow_ns) {
        row_note_slow_step(live->row, busy_ns, context);
    }
}

/* From now on this task counts nowhere: not as alive, and not at its end. */
static void
live_forget(Live *live)
{
    live_unlist(live);
    live->done = 1;
    live->counted = 0;
    if (live->waits) {
        wait_forget(live);
    }
    if (live->is_owner) {
        owner_leave(live);
    }
    Told *told = live_told(live);
    if (told != NULL) {
        live_set_told(live, NULL);
        told_free(told);
    }
}

/* The task is done. `error` is the type of its exception if it failed. At its very end a listener may run, and with it
   anything. */
static NEVER_INLINE void
live_end(Live *live, Outcome outcome, PyTypeObject *error, int64_t now_ns, PyObject *context)
{
    Row *row = live->row;
    live->done = 1;
    if (live->waits) {
        wait_forget(live);
    }
    if (live->is_owner) {
        owner_leave(live);
    }
    if (!live->counted) {
        return;
    }
    live_unlist(live);
    switch (outcome) {
    case FINISHED:
        row->finished++;
        break;
    case CANCELLED:
        row->cancelled++;
        break;
    case FAILED:
        row_count_failure(row, error);
        break;
    case DESTROYED:
        row->destroyed++;
        if (live->has_told) {
            told_later(live, monotonic_ns(&row->probe->state->clock) - live->created_ns);
        }
        return;
    }
    row_observe(row, &row->durations[outcome], now_ns - live->created_ns, context);
    if (live->has_told) {
        told_end(live, outcome, now_ns - live->created_ns);
    }
}

#endif
