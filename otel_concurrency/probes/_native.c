/* The native probes. The task probe: one row of plain numbers per coroutine function, written by every step of every task.

   The pure twin is probes/pure.py, the tests are the same. On CPython 3.10 to 3.13 a proxy around the coroutine sees the
   steps (native_source/proxy.h), from 3.14 a context watcher (native_source/watcher.h). The work probe: a row per pool
   (native_source/work_probe.h, pools.h and work_rows.h), the work items of threads (native_source/work.h; its twin is
   probes/pure_work.py), and those for other processes (native_source/sent.h, probes/pure_sent.py), on their way over and
   back (native_source/crossing.h, again.h and stations.h, probes/pure_crossing.py). Loop timers: native_source/loop_time.h
   and libuv.h (their twin is probes/pure_loop_time.py). What adds up over a request: native_source/account.h, owners.h and
   first_steps.h (probes/account.py). No probe, but in need of C: native_source/repeat.h and shortcut.h.
   Hot paths call no OpenTelemetry API and run no Python code but the coroutine. All state belongs to one module instance,
   so to one interpreter. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stddef.h>
#include <structmember.h>

#if PY_VERSION_HEX >= 0x030E0000
#define WATCH_CONTEXTS
#endif

/* What every step of every task goes through is said outright: left to its own judgement, the compiler inlines less of it
   with all that this unit grows by elsewhere, which was 15 to 20 ns of a step. */
#if defined(__GNUC__) || defined(__clang__)
#define ALWAYS_INLINE inline __attribute__((always_inline))
#define NEVER_INLINE __attribute__((noinline))
#else
#define ALWAYS_INLINE inline
#define NEVER_INLINE
#endif

#include "native_source/clock.h"
#include "native_source/histogram.h"

struct TaskProbe;
static void tell_no_spans(struct TaskProbe *probe);
static inline PyObject *probe_name_cr_code(struct TaskProbe *probe);

typedef struct ModuleState {
    PyTypeObject *probe_type;
    PyTypeObject *stand_in_state_type;
    PyTypeObject *account_type;
    PyTypeObject *proxy_type;
    PyTypeObject *work_probe_type;
    PyTypeObject *pool_type;
    PyTypeObject *work_type;
    PyTypeObject *sent_type;
    PyTypeObject *crossing_type;
    PyTypeObject *station_type;
    PyTypeObject *timer_type;
    PyTypeObject *timed_select_type;
    PyTypeObject *timed_epoll_type;
    PyTypeObject *watch_type;
    PyObject *slot_key;
    Clock clock;
    BucketTable buckets; /* the loop timers' */
    struct ThreadSlot *threads;
    struct Account **owners; /* strong, placed by the address of the task; NULL: a free place */
    size_t owner_mask;
    size_t owner_count;
    struct Proxy *free_proxies;
    int free_proxy_count;
    PyTypeObject *flag_type; /* a class of tasks that nobody can change, and its `_must_cancel`, a getset descriptor */
    PyObject *flag;
    PyObject *name_cr_code;
    PyObject *name_cr_frame;
    PyObject *name_send;
    PyObject *name_throw;
    PyObject *name_close;
    PyObject *name_must_cancel;
    PyObject *name_get;
    PyObject *name_work_id;
    PyObject *name_item;
    PyObject *name_fn;
    PyObject *name_args;
    PyObject *name_failure;
    PyObject *name_exc;
    PyObject *name_tb;
    PyObject *name_pending_work_items;
    PyObject *name_key;
    PyObject *name_process;
    PyObject *name_dict;
    PyObject *name_context;
    PyObject *name_is_recording;
    PyObject *name_account;
    PyObject *name_make;
    PyObject *name_task_ended;
#ifdef WATCH_CONTEXTS
    PyTypeObject *entry_type;
    PyTypeObject *told_entry_type;
    PyObject *task_died;
    PyTypeObject *done_type; /* the class of tasks seen last, and its `done` */
    PyObject *done;
    PyObject *name_get_context;
    PyObject *name_done;
    PyObject *name_cancelled;
    PyObject *name_exception;
    PyObject *name_fut_waiter;
    PyInterpreterState *interpreter;
    PyObject **map; /* entries, strong, placed by the address of their context; NULL: a free place */
    size_t map_mask;
    size_t map_used;
    size_t entry_offset; /* of its numbers */
    int watcher; /* -1: none */
#endif
} ModuleState;

#include "native_source/rows.h"
#include "native_source/tasks.h"
#include "native_source/threads.h"
#include "native_source/account.h"

static inline PyObject *
probe_name_cr_code(TaskProbe *probe)
{
    return probe->state->name_cr_code;
}

/* What no coroutine function made, or what cannot be followed, is counted by the pure twin. */
static void
probe_count_foreign(TaskProbe *probe, PyObject *loop, PyObject *coroutine, PyObject *task, int64_t created_ns, Begun *begun)
{
    if (probe->foreign == NULL) {
        span_abandon(probe, begun);
        return;
    }
    if (begun->account != NULL) {
        Py_XDECREF(account_count_task(begun->account, NULL));
    }
    PyObject *told = PyObject_CallFunction(probe->foreign, "OOOLO", loop, coroutine, task, (long long)created_ns,
                                           begun->span != NULL ? begun->span : Py_None);
    if (told == NULL) {
        PyErr_Clear();
        probe->lost++;
    }
    Py_XDECREF(told);
    Py_CLEAR(begun->span);
    Py_CLEAR(begun->account);
}

#ifdef WATCH_CONTEXTS
static PyObject *context_of_frame(ThreadSlot *slot);
#endif
#include "native_source/proxy.h"
#ifdef WATCH_CONTEXTS
#include "native_source/watcher.h"

static PyObject *
context_of_frame(ThreadSlot *slot)
{
    return context_of(slot->state, slot->frames[slot->depth - 1].entry);
}
#endif

#include "native_source/wait_methods.h"
#include "native_source/repeat.h"
#include "native_source/shortcut.h"
#include "native_source/work_rows.h"
#include "native_source/work.h"
#include "native_source/sent.h"
#include "native_source/pools.h"
#include "native_source/work_probe.h"
#include "native_source/crossing.h"
#include "native_source/loop_time.h"
#include "native_source/timed_epoll.h"
#include "native_source/libuv.h"
#include "native_source/watch.h"
#include "native_source/quiet_thread.h"

/* --- TaskProbe --- */

PyDoc_STRVAR(create_task_doc,
"create_task(original, loop, coroutine, /, *args, **kwargs)\n--\n\n"
"Call `original(loop, coroutine, *args, **kwargs)` and follow the task that it returns.");

static PyObject *
probe_create_task(TaskProbe *probe, PyObject *const *arguments, Py_ssize_t count, PyObject *keywords)
{
    if (count < 3) {
        PyErr_SetString(PyExc_TypeError, "create_task() takes the original, a loop and a coroutine");
        return NULL;
    }
    if (probe->rows == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "this TaskProbe was not initialised");
        return NULL;
    }
#ifdef WATCH_CONTEXTS
    return create_task_with_watcher(probe, arguments, (size_t)count, keywords);
#else
    if (PyCoro_CheckExact(arguments[2])) {
        return create_task_with_proxy(probe, arguments, (size_t)count, keywords);
    }
    Begun begun = {NULL};
    int is_proxy = Py_IS_TYPE(arguments[2], probe->state->proxy_type); /* it counts for itself */
    if (!is_proxy && probe->begin_span != NULL && given_context(arguments, count, keywords, probe->state) == NULL) {
        span_begin(probe, row_of(probe, arguments[2]), arguments[2], &begun);
    }
    int64_t created_ns = system_monotonic_ns(); /* the twin's clock */
    PyObject *task = PyObject_Vectorcall(arguments[0], arguments + 1, count - 1, keywords);
    span_leave(probe, &begun);
    if (task != NULL && !is_proxy) {
        probe_count_foreign(probe, arguments[1], arguments[2], task, created_ns, &begun);
    }
    span_abandon(probe, &begun);
    return task;
#endif
}

PyDoc_STRVAR(follow_doc,
"follow(loop, coroutine, named, /)\n--\n\n"
"Count a task by the function that made `named`; return what its loop is to drive in the coroutine's place.");

static PyObject *
probe_follow(TaskProbe *probe, PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 3 || probe->rows == NULL) {
        PyErr_SetString(PyExc_TypeError, "follow() takes a loop, a coroutine, and what names it");
        return NULL;
    }
    if (!PyCoro_CheckExact(arguments[1])) {
        return Py_NewRef(arguments[1]); /* no proxy can stand for it */
    }
    PyObject *proxy = proxy_new(probe, arguments[0], arguments[1], row_of(probe, arguments[2]));
    if (proxy != NULL) {
        Begun begun = {.account = account_now(probe)};
        told_attach(&as_proxy(proxy)->live, &begun);
        live_count(&as_proxy(proxy)->live);
    }
    return proxy;
}

PyDoc_STRVAR(see_through_doc,
"see_through(code, carried, /)\n--\n\n"
"Name a task whose coroutine is of this code by what `carried` returns for it.");

static PyObject *
probe_see_through(TaskProbe *probe, PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 2 || !PyCode_Check(arguments[0]) || !PyCallable_Check(arguments[1])) {
        PyErr_SetString(PyExc_TypeError, "see_through() takes a code object and a callable");
        return NULL;
    }
    Py_XSETREF(probe->carried, Py_NewRef(arguments[1])); /* first: who has the one is to have the other */
    Py_XSETREF(probe->carrier, Py_NewRef(arguments[0]));
    Py_RETURN_NONE;
}

PyDoc_STRVAR(also_cancelled_doc,
"also_cancelled(error, /)\n--\n\n"
"A task that ends with this exception was cancelled, too.");

static PyObject *
probe_also_cancelled(TaskProbe *probe, PyObject *error)
{
    if (!PyExceptionClass_Check(error) || probe->rows == NULL) {
        PyErr_SetString(PyExc_TypeError, "also_cancelled() takes an exception class");
        return NULL;
    }
    PyObject *first = PyTuple_Check(probe->cancelled_error) ? PyTuple_GET_ITEM(probe->cancelled_error, 0)
                                                            : probe->cancelled_error;
    PyObject *both = PyTuple_Pack(2, first, error);
    if (both == NULL) {
        return NULL;
    }
    Py_SETREF(probe->cancelled_error, both);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(tell_spans_doc,
"tell_spans(begin, how=None, /)\n--\n\n"
"Call this with each coroutine that a task is made of in a copy of its creator's context; None: call nobody.\n\n"
"It returns None, or what to tell of the task's end and the value of the origin variable in its context. `how` is (maker,\n"
"key of the current span, type of stand-ins, type of contexts, threshold in ns): with it, what was accepted once is\n"
"begun without a call.");

static void
tell_no_spans(TaskProbe *probe)
{
    Py_CLEAR(probe->begin_span);
    Py_CLEAR(probe->span_maker);
    Py_CLEAR(probe->span_key);
    Py_CLEAR(probe->known_span);
    Py_CLEAR(probe->stand_in_type);
    Py_CLEAR(probe->context_type);
}

static PyObject *
probe_tell_spans(TaskProbe *probe, PyObject *args)
{
    PyObject *begin;
    PyObject *how = Py_None;
    PyObject *maker = NULL;
    PyObject *key = NULL;
    PyTypeObject *stand_ins = NULL;
    PyTypeObject *contexts = NULL;
    long long threshold_ns = 0;
    if (!PyArg_ParseTuple(args, "O|O:tell_spans", &begin, &how)) {
        return NULL;
    }
    if (begin != Py_None && !PyCallable_Check(begin)) {
        PyErr_SetString(PyExc_TypeError, "tell_spans() takes a callable or None");
        return NULL;
    }
    if (how != Py_None) {
        if (!PyArg_Parse(how, "(OOO!O!L)", &maker, &key, &PyType_Type, &stand_ins, &PyType_Type, &contexts, &threshold_ns)) {
            return NULL;
        }
        if (!PyType_IsSubtype(stand_ins, probe->state->stand_in_state_type)
            || !PyType_IsSubtype(contexts, &PyDict_Type)) {
            PyErr_SetString(PyExc_TypeError, "tell_spans() takes a type of stand-ins and one of dicts");
            return NULL;
        }
    }
    tell_no_spans(probe);
    for (Py_ssize_t i = 0; i < probe->row_count; i++) {
        Py_CLEAR(probe->rows[i]->span_name);
    }
    probe->begin_span = begin != Py_None ? Py_NewRef(begin) : NULL;
    probe->span_maker = Py_XNewRef(maker);
    probe->span_key = Py_XNewRef(key);
    probe->stand_in_type = (PyTypeObject *)Py_XNewRef((PyObject *)stand_ins);
    probe->context_type = (PyTypeObject *)Py_XNewRef((PyObject *)contexts);
    probe->span_threshold_ns = threshold_ns;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(read_rows_doc,
"read_rows()\n--\n\n"
"Return what each coroutine function's row holds, exemplars drained; the row of all others comes first.");

static PyObject *
probe_read_rows(TaskProbe *probe, PyObject *Py_UNUSED(ignored))
{
    tell_of_died(probe);
    PyObject *result = PyList_New(0);
    clock_adjust(&probe->state->clock);
    for (Py_ssize_t i = 0; result != NULL && i < probe->row_count; i++) {
        Row *row = probe->rows[i];
        PyObject *histograms[ROW_HISTOGRAMS] = {NULL};
        PyObject *failed = PyDict_Copy(row->failed);
        int ok = failed != NULL;
        uint64_t live = row->created - row->finished - row->cancelled - row->destroyed - row->failures;
        unsigned long long numbers[] = {row->created, row->finished, row->cancelled, row->destroyed, live, row->steps};
        long long busy_ns = row->busy_ns;
        for (int k = 0; ok && k < ROW_HISTOGRAMS; k++) {
            histograms[k] = histogram_read(row_histogram(row, k));
            ok = histograms[k] != NULL;
        }
        PyObject *item = !ok ? NULL
                             : Py_BuildValue("(OKKKKOKKLOOOOO)", row->name, numbers[0], numbers[1], numbers[2],
                                             numbers[3], failed, numbers[4], numbers[5], busy_ns, histograms[2],
                                             histograms[3], histograms[4], histograms[0], histograms[1]);
        Py_XDECREF(failed);
        for (int k = 0; k < ROW_HISTOGRAMS; k++) {
            Py_XDECREF(histograms[k]);
        }
        if (item == NULL || PyList_Append(result, item) < 0) {
            Py_CLEAR(result);
        }
        Py_XDECREF(item);
    }
    return result;
}

PyDoc_STRVAR(peek_rows_doc,
"peek_rows()\n--\n\n"
"Return (coroutine name, created, done, live, steps, busy ns, durations of the finished) of each row; nothing is drained.");

static PyObject *
probe_peek_rows(TaskProbe *probe, PyObject *Py_UNUSED(ignored))
{
    PyObject *result = PyList_New(0);
    clock_adjust(&probe->state->clock);
    for (Py_ssize_t i = 0; result != NULL && i < probe->row_count; i++) {
        Row *row = probe->rows[i];
        unsigned long long created = row->created;
        unsigned long long done = row->finished + row->cancelled + row->destroyed + row->failures;
        unsigned long long steps = row->steps;
        long long busy_ns = row->busy_ns;
        PyObject *finished = histogram_peek(row_histogram(row, 2));
        PyObject *item = finished == NULL ? NULL
                                          : Py_BuildValue("(OKKKKLN)", row->name, created, done, created - done, steps,
                                                          busy_ns, finished);
        if (item == NULL || PyList_Append(result, item) < 0) {
            Py_CLEAR(result);
        }
        Py_XDECREF(item);
    }
    return result;
}

PyDoc_STRVAR(read_loops_doc,
"read_loops()\n--\n\n"
"Return what each live event loop's row holds; the id of the row of all others is None.");

static PyObject *
probe_read_loops(TaskProbe *probe, PyObject *Py_UNUSED(ignored))
{
    PyObject *result = PyList_New(0);
    int64_t now_ns = monotonic_ns(&probe->state->clock);
    for (int i = 0; result != NULL && i <= MAX_LOOPS; i++) {
        Loop *loop = &probe->loops[i];
        if (i < MAX_LOOPS ? loop_is_free(loop) : loop->oldest == NULL) {
            continue;
        }
        int64_t states[STATE_COUNT];
        memcpy(states, loop->states, sizeof(states));
        PyObject *oldest = loop->oldest != NULL ? Py_NewRef(loop->oldest->row->name) : PyUnicode_New(0, 0);
        long long age_ns = loop->oldest != NULL ? now_ns - loop->oldest->created_ns : 0;
        const char *type = i < MAX_LOOPS ? loop->type : "other";
#ifdef WATCH_CONTEXTS
        count_scheduled(probe, loop, states);
#endif
        PyObject *id = i < MAX_LOOPS ? PyLong_FromLong(i) : Py_NewRef(Py_None);
        PyObject *item = oldest == NULL || id == NULL
                             ? NULL
                             : Py_BuildValue("(OsLLLLO)", id, type, (long long)states[RUNNING],
                                             (long long)states[SCHEDULED], (long long)states[WAITING], age_ns, oldest);
        Py_XDECREF(id);
        Py_XDECREF(oldest);
        if (item == NULL || PyList_Append(result, item) < 0) {
            Py_CLEAR(result);
        }
        Py_XDECREF(item);
    }
    return result;
}

static void forget_slow_steps(TaskProbe *probe);

PyDoc_STRVAR(reset_doc,
"reset()\n--\n\n"
"Begin at zero, as a forked child must: the tasks alive are the parent's, and count nowhere here.");

static PyObject *
probe_reset(TaskProbe *probe, PyObject *Py_UNUSED(ignored))
{
    for (int i = 0; i <= MAX_LOOPS; i++) {
        Loop *loop = &probe->loops[i];
        while (loop->oldest != NULL) {
#ifdef WATCH_CONTEXTS
            if (loop->oldest->watched) {
                entry_forget(probe->state, loop->oldest);
                continue;
            }
#endif
            live_forget(loop->oldest);
        }
        loop->loop = NULL;
        Py_CLEAR(loop->reference);
    }
    PySet_Clear(probe->error_names);
    forget_slow_steps(probe);
    forget_died(probe);
    probe->lost = 0;
    for (Py_ssize_t i = 0; i < probe->row_count; i++) {
        row_reset(probe->rows[i]);
    }
    for (int i = 0; i < probe->wait_row_count; i++) {
        probe->wait_rows[i].contentions = 0;
        probe->wait_rows[i].wait_ns = 0;
        histogram_reset(&probe->wait_rows[i].durations);
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(loop_of_doc,
"loop_of(loop, /)\n--\n\n"
"Return the id and the type of a loop, known or new; (None, 'other') beyond the limit.");

static PyObject *
probe_loop_of(TaskProbe *probe, PyObject *loop)
{
    uint8_t index = loop_index(probe, loop);
    return index < MAX_LOOPS ? Py_BuildValue("(is)", (int)index, probe->loops[index].type)
                             : Py_BuildValue("(Os)", Py_None, "other");
}

PyDoc_STRVAR(numbers_doc,
"numbers(key, task, /)\n--\n\n"
"Return what is kept of a live task: (age, steps, time inside of them or -1, what it waits for or -1, for how long or -1).\n\n"
"`key` is its coroutine, or, with a context watcher, its context. None: it is not counted here.");

static PyObject *
probe_numbers(TaskProbe *probe, PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "numbers() takes what a task is known by, and the task");
        return NULL;
    }
    Live *live = NULL;
    if (Py_IS_TYPE(arguments[0], probe->state->proxy_type)) {
        live = &as_proxy(arguments[0])->live;
    }
#ifdef WATCH_CONTEXTS
    else {
        PyObject *entry = map_find(probe->state, arguments[0]);
        if (entry != NULL && reference_target(entry) == arguments[1]) {
            live = &entry_data(probe->state, entry)->live;
        }
    }
#endif
    if (live == NULL || live->done || live->row->probe != probe) {
        Py_RETURN_NONE;
    }
    int64_t now_ns = monotonic_ns(&probe->state->clock);
    long long busy_ns = live->has_told ? live_told(live)->busy_ns : -1;
    int row = -1;
    long long wait_ns = -1;
    if (live->waits) {
        Wait *wait = &probe->waits[wait_find(probe, live)];
        row = wait->row;
        wait_ns = now_ns - wait->began_ns;
    }
    return Py_BuildValue("(LkLiL)", (long long)(now_ns - live->created_ns), (unsigned long)live->steps, busy_ns, row, wait_ns);
}

PyDoc_STRVAR(running_doc,
"running()\n--\n\n"
"Return (thread ident, coroutine name, ns since its step began) of each thread that is inside a step.");

static PyObject *
probe_running(TaskProbe *probe, PyObject *Py_UNUSED(ignored))
{
    return threads_running(probe->state);
}

PyDoc_STRVAR(note_slow_steps_doc,
"note_slow_steps(threshold_ns, /)\n--\n\n"
"Keep steps that take so long, for `slow_steps`; 0: none.");

static PyObject *
probe_note_slow_steps(TaskProbe *probe, PyObject *argument)
{
    long long threshold_ns = PyLong_AsLongLong(argument);
    if (threshold_ns == -1 && PyErr_Occurred()) {
        return NULL;
    }
    probe->slow_ns = threshold_ns > 0 ? threshold_ns : INT64_MAX;
    Py_RETURN_NONE;
}

static void
forget_slow_steps(TaskProbe *probe)
{
    while (probe->slow_count > 0) {
        SlowStep step = probe->slow_steps[--probe->slow_count];
        Py_XDECREF(step.name);
        Py_XDECREF(step.origin);
    }
}

PyDoc_STRVAR(step_counts_doc,
"step_counts()\n--\n\n"
"Return (coroutine name, steps) of each row; nothing is drained.");

static PyObject *
probe_step_counts(TaskProbe *probe, PyObject *Py_UNUSED(ignored))
{
    PyObject *result = PyList_New(0);
    for (Py_ssize_t i = 0; result != NULL && i < probe->row_count; i++) {
        PyObject *item = Py_BuildValue("(OK)", probe->rows[i]->name, (unsigned long long)probe->rows[i]->steps);
        if (item == NULL || PyList_Append(result, item) < 0) {
            Py_CLEAR(result);
        }
        Py_XDECREF(item);
    }
    return result;
}

PyDoc_STRVAR(slow_steps_doc,
"slow_steps()\n--\n\n"
"Return (coroutine name, origin or None, thread ident, monotonic ns of its end, ns that it took, CPU time of its thread\n"
"at its end or -1) of each slow step since the last call.");

static PyObject *
probe_slow_steps(TaskProbe *probe, PyObject *Py_UNUSED(ignored))
{
    SlowStep steps[MAX_SLOW_STEPS];
    int count = probe->slow_count;
    memcpy(steps, probe->slow_steps, sizeof(steps));
    probe->slow_count = 0; /* they are ours now: building objects may run a collection, and that more steps */
    PyObject *result = PyList_New(0);
    for (int i = 0; i < count; i++) {
        PyObject *item = result == NULL ? NULL
                                        : Py_BuildValue("(OOkLLL)", steps[i].name,
                                                        steps[i].origin != NULL ? steps[i].origin : Py_None,
                                                        steps[i].ident, (long long)steps[i].ended_ns,
                                                        (long long)steps[i].busy_ns, (long long)steps[i].cpu_ns);
        if (item == NULL || PyList_Append(result, item) < 0) {
            Py_CLEAR(result);
        }
        Py_XDECREF(item);
        Py_DECREF(steps[i].name);
        Py_XDECREF(steps[i].origin);
    }
    return result;
}

PyDoc_STRVAR(probe_doc,
"TaskProbe(cancelled_error, *, max_coroutines, max_error_types, origin=None, current_tasks=None, foreign=None,\n"
"          loop_ids=None)\n--\n\n"
"Numbers of tasks by coroutine function.\n\n"
"Args:\n"
"    cancelled_error: asyncio.CancelledError.\n"
"    max_coroutines: Rows kept; the tasks of further coroutine functions share the row `_other`.\n"
"    max_error_types: Exception type names kept over all rows, then `_other`.\n"
"    origin: Context variable whose value exemplars keep.\n"
"    current_tasks: asyncio's dict from loop to running task, where it has one.\n"
"    foreign: Called with (loop, coroutine, task, created_ns) for a task that cannot be followed.\n"
"    loop_ids: Called with a loop at first sight; returns its id and type.");

static int
probe_init(TaskProbe *probe, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"cancelled_error", "max_coroutines", "max_error_types", "origin",
                            "current_tasks", "foreign", "loop_ids", NULL};
    PyObject *cancelled_error;
    PyObject *origin = Py_None;
    PyObject *current_tasks = Py_None;
    PyObject *foreign = Py_None;
    PyObject *loop_ids = Py_None;
    Py_ssize_t max_coroutines = -1;
    Py_ssize_t max_error_types = -1;
    if (probe->rows != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "a TaskProbe is initialised once");
        return -1;
    }
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$nnOOOO", names, &cancelled_error, &max_coroutines,
                                     &max_error_types, &origin, &current_tasks, &foreign, &loop_ids)) {
        return -1;
    }
    if (max_coroutines < 0 || max_coroutines > 100000 || max_error_types < 0) {
        PyErr_SetString(PyExc_ValueError, "max_coroutines is 0 to 100000 and max_error_types at least 0");
        return -1;
    }
    if (!PyExceptionClass_Check(cancelled_error)) {
        PyErr_SetString(PyExc_TypeError, "cancelled_error is an exception class");
        return -1;
    }
    if (origin != Py_None && !PyContextVar_CheckExact(origin)) {
        PyErr_SetString(PyExc_TypeError, "origin is a ContextVar or None");
        return -1;
    }
    if (current_tasks != Py_None && !PyDict_Check(current_tasks)) {
        PyErr_SetString(PyExc_TypeError, "current_tasks is a dict or None");
        return -1;
    }
    if ((foreign != Py_None && !PyCallable_Check(foreign)) || (loop_ids != Py_None && !PyCallable_Check(loop_ids))) {
        PyErr_SetString(PyExc_TypeError, "foreign and loop_ids are callable or None");
        return -1;
    }
    size_t places = 16;
    while (places < (size_t)max_coroutines * 2) {
        places *= 2;
    }
    PyObject *other = PyUnicode_FromString("_other");
    probe->error_names = PySet_New(NULL);
    probe->rows = PyMem_Calloc((size_t)max_coroutines + 1, sizeof(Row *));
    probe->slots = PyMem_Calloc(places, sizeof(Row *));
    if (other == NULL || probe->error_names == NULL || probe->rows == NULL || probe->slots == NULL) {
        Py_XDECREF(other);
        Py_CLEAR(probe->error_names);
        PyMem_Free(probe->rows);
        PyMem_Free(probe->slots);
        probe->rows = probe->slots = NULL;
        PyErr_NoMemory();
        return -1;
    }
    probe->slot_mask = places - 1;
    probe->slow_ns = INT64_MAX;
    probe->max_rows = max_coroutines;
    probe->max_error_types = max_error_types;
    probe->cancelled_error = Py_NewRef(cancelled_error);
    probe->origin_var = origin != Py_None ? Py_NewRef(origin) : NULL;
    probe->current_tasks = current_tasks != Py_None ? Py_NewRef(current_tasks) : NULL;
    probe->foreign = foreign != Py_None ? Py_NewRef(foreign) : NULL;
    probe->loop_ids = loop_ids != Py_None ? Py_NewRef(loop_ids) : NULL;
    bucket_table_init(&probe->buckets);
    Row *first = row_new(probe, NULL, other);
    Py_DECREF(other);
    return first != NULL ? 0 : -1;
}

static PyObject *
probe_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    TaskProbe *probe = (TaskProbe *)type->tp_alloc(type, 0); /* all zero */
    if (probe != NULL) {
        probe->module = Py_XNewRef(PyType_GetModule(type));
        probe->state = probe->module != NULL ? PyModule_GetState(probe->module) : NULL;
        if (probe->state == NULL) {
            Py_CLEAR(probe);
        }
    }
    return (PyObject *)probe;
}

static int
probe_traverse(TaskProbe *probe, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(probe));
    Py_VISIT(probe->module);
    Py_VISIT(probe->origin_var);
    Py_VISIT(probe->cancelled_error);
    Py_VISIT(probe->current_tasks);
    Py_VISIT(probe->carrier);
    Py_VISIT(probe->carried);
    Py_VISIT(probe->foreign);
    Py_VISIT(probe->loop_ids);
    Py_VISIT(probe->begin_span);
    Py_VISIT(probe->span_maker);
    Py_VISIT(probe->span_key);
    Py_VISIT(probe->known_span);
    Py_VISIT(probe->stand_in_type);
    Py_VISIT(probe->context_type);
    for (Told *told = probe->died; told != NULL; told = told->next) {
        Py_VISIT(told->span);
    }
    for (int i = 0; i < probe->slow_count; i++) {
        Py_VISIT(probe->slow_steps[i].origin);
    }
    for (Py_ssize_t i = 0; i < probe->row_count; i++) {
        Py_VISIT(probe->rows[i]->key);
        for (int k = 0; k < ROW_HISTOGRAMS; k++) {
            int result = histogram_traverse(row_histogram(probe->rows[i], k), visit, arg);
            if (result != 0) {
                return result;
            }
        }
    }
    return 0;
}

/* A task that is still live keeps its probe, so no row goes while someone points at it. */
static int
probe_clear(TaskProbe *probe)
{
    Py_CLEAR(probe->foreign);
    Py_CLEAR(probe->loop_ids);
    tell_no_spans(probe);
    forget_died(probe);
    Py_CLEAR(probe->current_tasks);
    Py_CLEAR(probe->carrier);
    Py_CLEAR(probe->carried);
    Py_CLEAR(probe->origin_var);
    forget_slow_steps(probe);
    for (Py_ssize_t i = 0; i < probe->row_count; i++) {
        for (int k = 0; k < ROW_HISTOGRAMS; k++) {
            histogram_drop_exemplars(row_histogram(probe->rows[i], k));
        }
    }
    return 0;
}

static void
probe_dealloc(TaskProbe *probe)
{
    PyTypeObject *type = Py_TYPE(probe);
    PyObject_GC_UnTrack(probe);
    probe_clear(probe);
    for (Py_ssize_t i = 0; i < probe->row_count; i++) {
        row_free(probe->rows[i]);
    }
    PyMem_Free(probe->rows);
    PyMem_Free(probe->slots);
    waits_free(probe);
    for (int i = 0; i < MAX_LOOPS; i++) {
        Py_XDECREF(probe->loops[i].reference);
    }
    Py_XDECREF(probe->error_names);
    Py_XDECREF(probe->cancelled_error);
    Py_XDECREF(probe->module);
    type->tp_free((PyObject *)probe);
    Py_DECREF(type);
}

static PyMethodDef probe_methods[] = {
    {"create_task", (PyCFunction)(void (*)(void))probe_create_task, METH_FASTCALL | METH_KEYWORDS, create_task_doc},
    {"follow", (PyCFunction)(void (*)(void))probe_follow, METH_FASTCALL, follow_doc},
    {"see_through", (PyCFunction)(void (*)(void))probe_see_through, METH_FASTCALL, see_through_doc},
    {"also_cancelled", (PyCFunction)probe_also_cancelled, METH_O, also_cancelled_doc},
    {"tell_spans", (PyCFunction)probe_tell_spans, METH_VARARGS, tell_spans_doc},
    {"read_rows", (PyCFunction)probe_read_rows, METH_NOARGS, read_rows_doc},
    {"peek_rows", (PyCFunction)probe_peek_rows, METH_NOARGS, peek_rows_doc},
    {"read_loops", (PyCFunction)probe_read_loops, METH_NOARGS, read_loops_doc},
    {"wait_begins", (PyCFunction)probe_wait_begins, METH_O, wait_begins_doc},
    {"read_waits", (PyCFunction)probe_read_waits, METH_NOARGS, read_waits_doc},
    {"reset", (PyCFunction)probe_reset, METH_NOARGS, reset_doc},
    {"loop_of", (PyCFunction)probe_loop_of, METH_O, loop_of_doc},
    {"note_slow_steps", (PyCFunction)probe_note_slow_steps, METH_O, note_slow_steps_doc},
    {"slow_steps", (PyCFunction)probe_slow_steps, METH_NOARGS, slow_steps_doc},
    {"step_counts", (PyCFunction)probe_step_counts, METH_NOARGS, step_counts_doc},
    {"running", (PyCFunction)probe_running, METH_NOARGS, running_doc},
    {"numbers", (PyCFunction)(void (*)(void))probe_numbers, METH_FASTCALL, numbers_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef probe_members[] = {
    {"lost", T_ULONGLONG, offsetof(TaskProbe, lost), READONLY, "Events that memory ran out for."},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot probe_slots[] = {
    {Py_tp_new, probe_new},           {Py_tp_init, probe_init},         {Py_tp_dealloc, probe_dealloc},
    {Py_tp_traverse, probe_traverse}, {Py_tp_clear, probe_clear},       {Py_tp_methods, probe_methods},
    {Py_tp_members, probe_members},   {Py_tp_doc, (void *)probe_doc},   {0, NULL},
};

static PyType_Spec probe_spec = {
    .name = "otel_concurrency.probes._native.TaskProbe",
    .basicsize = sizeof(TaskProbe),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = probe_slots,
};

/* --- the module --- */

PyDoc_STRVAR(bucket_position_doc,
"bucket_position(ns, /)\n--\n\n"
"Return the table position of a duration of at least 1 ns, as `probes.histogram.bucket_position` does.");

static PyObject *
module_bucket_position(PyObject *Py_UNUSED(module), PyObject *argument)
{
    BucketTable table;
    long long ns = PyLong_AsLongLong(argument);
    if (ns == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (ns < 1) {
        PyErr_SetString(PyExc_ValueError, "a bucket holds 1 ns or more");
        return NULL;
    }
    bucket_table_init(&table);
    return PyLong_FromLong(bucket_position(&table, ns));
}

PyDoc_STRVAR(monotonic_ns_doc,
"monotonic_ns()\n--\n\n"
"Return the probes' clock, ns since some moment: only differences mean something.");

static PyObject *
module_monotonic_ns(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    ModuleState *state = PyModule_GetState(module);
    return PyLong_FromLongLong(monotonic_ns(&state->clock));
}

static PyMethodDef module_methods[] = {
    {"monotonic_ns", module_monotonic_ns, METH_NOARGS, monotonic_ns_doc},
    {"context_of_thread", module_context_of_thread, METH_O, context_of_thread_doc},
    {"shortcut", module_shortcut, METH_O, shortcut_doc},
    {"read_held", module_read_held, METH_O, read_held_doc},
    {"start_quiet_thread", module_start_quiet_thread, METH_O, start_quiet_thread_doc},
    {"bucket_position", module_bucket_position, METH_O, bucket_position_doc},
#ifdef REPEAT_SIGNALS
    {"repeat_signal", module_repeat_signal, METH_VARARGS, repeat_signal_doc},
    {"signal_heard", module_signal_heard, METH_O, signal_heard_doc},
#endif
    {NULL, NULL, 0, NULL},
};

static int
module_exec(PyObject *module)
{
    ModuleState *state = PyModule_GetState(module);
    struct {
        PyObject **place;
        const char *text;
    } names[] = {
        {&state->slot_key, SLOT_CAPSULE},         {&state->name_cr_code, "cr_code"},
        {&state->name_cr_frame, "cr_frame"},      {&state->name_send, "send"},
        {&state->name_throw, "throw"},            {&state->name_close, "close"},
        {&state->name_must_cancel, "_must_cancel"}, {&state->name_get, "get"},
        {&state->name_work_id, "work_id"},
        {&state->name_item, "_item"},
        {&state->name_fn, "fn"},
        {&state->name_args, "args"},
        {&state->name_failure, "exception"},
        {&state->name_exc, "exc"},
        {&state->name_tb, "tb"},
        {&state->name_pending_work_items, "pending_work_items"},
        {&state->name_key, "_otel_concurrency"},
        {&state->name_process, "process"},
        {&state->name_dict, "__dict__"},
        {&state->name_context, "context"},
        {&state->name_is_recording, "is_recording"},
        {&state->name_account, ACCOUNT_ATTRIBUTE},
        {&state->name_make, "make"},
        {&state->name_task_ended, "task_ended"},
#ifdef WATCH_CONTEXTS
        {&state->name_get_context, "get_context"}, {&state->name_done, "done"},
        {&state->name_cancelled, "cancelled"},     {&state->name_exception, "_exception"},
        {&state->name_fut_waiter, "_fut_waiter"},
#endif
    };
    clock_init(&state->clock);
    bucket_table_init(&state->buckets);
    for (size_t i = 0; i < Py_ARRAY_LENGTH(names); i++) {
        *names[i].place = PyUnicode_InternFromString(names[i].text);
        if (*names[i].place == NULL) {
            return -1;
        }
    }
    state->probe_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &probe_spec, NULL);
    state->proxy_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &proxy_spec, NULL);
    if (state->probe_type == NULL || state->proxy_type == NULL || PyModule_AddType(module, state->probe_type) < 0) {
        return -1;
    }
    state->stand_in_state_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &stand_in_spec, NULL);
    if (state->stand_in_state_type == NULL || PyModule_AddType(module, state->stand_in_state_type) < 0) {
        return -1;
    }
    state->account_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &account_spec, NULL);
    if (state->account_type == NULL || PyModule_AddType(module, state->account_type) < 0) {
        return -1;
    }
    state->work_probe_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &work_probe_spec, NULL);
    state->pool_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &pool_spec, NULL);
    state->work_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &work_spec, NULL);
    state->sent_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &sent_spec, NULL);
    state->crossing_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &crossing_spec, NULL);
    state->station_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &station_spec, NULL);
    if (state->work_probe_type == NULL || state->pool_type == NULL || state->work_type == NULL
        || state->sent_type == NULL || state->crossing_type == NULL || state->station_type == NULL
        || PyModule_AddType(module, state->work_probe_type) < 0 || PyModule_AddType(module, state->sent_type) < 0
        || PyModule_AddType(module, state->crossing_type) < 0) {
        return -1;
    }
    state->timer_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &timer_spec, NULL);
    state->timed_select_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &timed_select_spec, NULL);
    state->timed_epoll_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &timed_epoll_spec, NULL);
    state->watch_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &watch_spec, NULL);
    if (state->timer_type == NULL || state->timed_select_type == NULL || state->timed_epoll_type == NULL
        || state->watch_type == NULL
        || PyModule_AddType(module, state->timer_type) < 0 || PyModule_AddType(module, state->watch_type) < 0) {
        return -1;
    }
#ifdef WATCH_CONTEXTS
    state->watcher = -1;
    state->interpreter = PyInterpreterState_Get();
    PyObject *base = PyImport_ImportModule("_weakref");
    Py_XSETREF(base, base != NULL ? PyObject_GetAttrString(base, "ref") : NULL);
    if (base == NULL) {
        return -1;
    }
    state->entry_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &entry_spec, base);
    if (state->entry_type != NULL) {
        state->told_entry_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &told_entry_spec, base);
    }
    Py_DECREF(base);
    state->task_died = PyCFunction_New(&task_died_definition, module);
    if (state->entry_type == NULL || state->told_entry_type == NULL || state->task_died == NULL) {
        return -1;
    }
    state->watcher = PyContext_AddWatcher(context_switched);
    if (state->watcher < 0) {
        return -1;
    }
    const char *way = "watcher";
#else
    const char *way = "proxy";
#endif
    return PyModule_AddStringConstant(module, "WAY", way);
}

static int
module_traverse(PyObject *module, visitproc visit, void *arg)
{
    ModuleState *state = PyModule_GetState(module);
    Py_VISIT(state->probe_type);
    Py_VISIT(state->stand_in_state_type);
    Py_VISIT(state->account_type);
    Py_VISIT(state->proxy_type);
    Py_VISIT(state->work_probe_type);
    Py_VISIT(state->pool_type);
    Py_VISIT(state->work_type);
    Py_VISIT(state->sent_type);
    Py_VISIT(state->crossing_type);
    Py_VISIT(state->station_type);
    Py_VISIT(state->timer_type);
    Py_VISIT(state->timed_select_type);
    Py_VISIT(state->timed_epoll_type);
    Py_VISIT(state->watch_type);
#ifdef WATCH_CONTEXTS
    Py_VISIT(state->entry_type);
    Py_VISIT(state->told_entry_type);
    Py_VISIT(state->task_died);
    Py_VISIT(state->done_type);
    Py_VISIT(state->done);
#endif
    Py_VISIT(state->flag_type);
    Py_VISIT(state->flag);
    return 0;
}

static int
module_clear(PyObject *module)
{
    ModuleState *state = PyModule_GetState(module);
    proxies_free_all(state); /* before their type goes: to free an object is to look at its type */
    Py_CLEAR(state->probe_type);
    Py_CLEAR(state->stand_in_state_type);
    owners_free_all(state); /* before their type goes */
    Py_CLEAR(state->account_type);
    Py_CLEAR(state->proxy_type);
    Py_CLEAR(state->work_probe_type);
    Py_CLEAR(state->pool_type);
    Py_CLEAR(state->work_type);
    Py_CLEAR(state->sent_type);
    Py_CLEAR(state->crossing_type);
    Py_CLEAR(state->station_type);
    Py_CLEAR(state->timer_type);
    Py_CLEAR(state->timed_select_type);
    Py_CLEAR(state->timed_epoll_type);
    Py_CLEAR(state->watch_type);
#ifdef WATCH_CONTEXTS
    if (state->watcher >= 0) {
        if (PyContext_ClearWatcher(state->watcher) < 0) {
            PyErr_Clear();
        }
        state->watcher = -1;
    }
    Py_CLEAR(state->entry_type);
    Py_CLEAR(state->told_entry_type);
    Py_CLEAR(state->task_died);
    Py_CLEAR(state->done_type);
    Py_CLEAR(state->done);
#endif
    Py_CLEAR(state->flag_type);
    Py_CLEAR(state->flag);
    return 0;
}

static void
module_free(void *module)
{
    ModuleState *state = PyModule_GetState((PyObject *)module);
    if (state == NULL) {
        return;
    }
    module_clear((PyObject *)module);
    threads_leave(state);
    Py_CLEAR(state->slot_key);
    Py_CLEAR(state->name_cr_code);
    Py_CLEAR(state->name_cr_frame);
    Py_CLEAR(state->name_send);
    Py_CLEAR(state->name_throw);
    Py_CLEAR(state->name_close);
    Py_CLEAR(state->name_must_cancel);
    Py_CLEAR(state->name_get);
    Py_CLEAR(state->name_work_id);
    Py_CLEAR(state->name_item);
    Py_CLEAR(state->name_fn);
    Py_CLEAR(state->name_args);
    Py_CLEAR(state->name_failure);
    Py_CLEAR(state->name_exc);
    Py_CLEAR(state->name_tb);
    Py_CLEAR(state->name_pending_work_items);
    Py_CLEAR(state->name_key);
    Py_CLEAR(state->name_process);
    Py_CLEAR(state->name_dict);
    Py_CLEAR(state->name_context);
    Py_CLEAR(state->name_is_recording);
    Py_CLEAR(state->name_account);
    Py_CLEAR(state->name_make);
    Py_CLEAR(state->name_task_ended);
#ifdef WATCH_CONTEXTS
    Py_CLEAR(state->name_get_context);
    Py_CLEAR(state->name_done);
    Py_CLEAR(state->name_cancelled);
    Py_CLEAR(state->name_exception);
    Py_CLEAR(state->name_fut_waiter);
    for (size_t i = 0; state->map != NULL && i <= state->map_mask; i++) {
        Py_CLEAR(state->map[i]);
    }
    map_free(state->map, state->map_mask + 1);
    state->map = NULL;
#endif
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
    {0, NULL},
};

static struct PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_native",
    .m_doc = "The native probes.",
    .m_size = sizeof(ModuleState),
    .m_methods = module_methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC
PyInit__native(void)
{
    return PyModuleDef_Init(&module_definition);
}
