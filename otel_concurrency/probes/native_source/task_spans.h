/* What is told of single tasks, to whoever makes spans: only of those that somebody wanted to hear of when they were
   created. A probe that nobody asked for spans pays one comparison a task. */

#ifndef OTEL_CONCURRENCY_TASK_SPANS_H
#define OTEL_CONCURRENCY_TASK_SPANS_H

#include "stand_in.h"

struct Account;
static void account_add_task(struct Account *account);
static void account_add_start(struct Account *account, int64_t delay_ns);
static void account_step(Live *live, int64_t began_ns, int64_t ended_ns, Step *outer);
static struct Account *account_in(ModuleState *state, PyObject *key, PyObject *origin);
static void owner_leave(Live *live);

/* Of a live task; the pointer to it is all that other tasks carry. */
typedef struct Told {
    PyObject *span; /* NULL: nobody, there is but an account */
    struct Account *account; /* of the request that it is part of, or NULL */
    PyObject *error; /* borrowed, as `task`, by whoever ends the task */
    PyObject *task;
    struct Told *next; /* among those whose task died */
    int64_t duration_ns;
    int64_t busy_ns;
    int64_t start_delay_ns; /* -1: not started */
    uint32_t steps;
} Told;

/* A creation under way that somebody wants to hear of; all NULL else. */
typedef struct {
    PyObject *span;
    struct Account *account;
    PyObject *value; /* of the origin variable, in the task's context */
    PyObject *token;
} Begun;

static int
raise_now(void *error)
{
#if PY_VERSION_HEX >= 0x030C0000
    PyErr_SetRaisedException((PyObject *)error);
#else
    PyErr_SetObject((PyObject *)Py_TYPE((PyObject *)error), (PyObject *)error);
    Py_DECREF((PyObject *)error);
#endif
    return -1;
}

/* Our listener raised. What a signal handler did in its frame (KeyboardInterrupt, SystemExit) is the program's: it comes
   up in the main thread, a moment later. */
static void
listener_raised(TaskProbe *probe)
{
    probe->lost++;
    if (PyErr_ExceptionMatches(PyExc_Exception)) {
        PyErr_Clear();
        return;
    }
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    if (value != NULL && Py_AddPendingCall(raise_now, value) < 0) {
        Py_DECREF(value);
    }
}

static void
span_forget(TaskProbe *probe, PyObject *span)
{
    PyObject *told = PyObject_CallMethod(span, "forget", NULL);
    if (told == NULL) {
        listener_raised(probe);
    }
    Py_XDECREF(told);
}

/* Which recording span a task to come would write to: NULL for none, and `ask` set where only `begin_span` knows. New. */
static PyObject *
span_around(TaskProbe *probe, PyObject *around, int *ask)
{
    if (Py_IS_TYPE(around, probe->stand_in_type)) {
        StandIn *outer = (StandIn *)around;
        if (outer->created_in == NULL || outer->maker != probe->span_maker) {
            *ask = 1;
            return NULL;
        }
        return Py_XNewRef(outer->real);
    }
    if (probe->known_span == NULL || reference_target(probe->known_span) != around) {
        *ask = 1;
        return NULL;
    }
    PyObject *recording = PyObject_CallMethodNoArgs(around, probe->state->name_is_recording);
    if (recording == NULL) {
        PyErr_Clear();
        *ask = 1;
    }
    Py_XDECREF(recording);
    return recording == Py_True ? Py_NewRef(around) : NULL;
}

/* What `begin_span` does, in C. Returns 0 where it has to be asked after all. */
static int
span_begin_here(TaskProbe *probe, Row *row, Begun *begun)
{
    PyObject *current = NULL;
    PyObject *real = NULL;
    StandIn *stand_in = NULL;
    PyObject *context = NULL;
    int ask = 0;
    if (PyContextVar_Get(probe->origin_var, NULL, &current) < 0) {
        PyErr_Clear();
        return 0;
    }
    if (current == NULL || (PyDict_Check(current) && PyDict_GET_SIZE(current) == 0)) {
        Py_XDECREF(current); /* nothing, outside of any span: so are most tasks that nobody asked for */
        return 1;
    }
    if (!PyDict_Check(current)) {
        ask = 1;
        goto done;
    }
    PyObject *around = PyDict_GetItemWithError(current, probe->span_key);
    if (around == NULL) {
        goto done; /* outside of any span */
    }
    begun->account = (struct Account *)Py_XNewRef((PyObject *)account_in(probe->state, probe->span_key, current));
    if (row->span_name == NULL) {
        ask = 1;
        goto done;
    }
    Py_INCREF(around);
    real = span_around(probe, around, &ask);
    if (real != NULL) {
        stand_in = (StandIn *)probe->stand_in_type->tp_alloc(probe->stand_in_type, 0);
        context = stand_in != NULL ? PyObject_CallOneArg((PyObject *)probe->context_type, current) : NULL;
        if (context != NULL && PyDict_Check(context)
            && PyDict_SetItem(context, probe->span_key, (PyObject *)stand_in) == 0) {
            stand_in->maker = Py_NewRef(probe->span_maker);
            stand_in->real = Py_NewRef(real);
            stand_in->around = Py_NewRef(around);
            stand_in->created_in = Py_NewRef(current);
            stand_in->code = Py_NewRef(row->key);
            stand_in->function = Py_NewRef(row->span_name);
            stand_in->account = Py_XNewRef((PyObject *)begun->account);
            stand_in->start_unix_ns = unix_ns();
            begun->token = PyContextVar_Set(probe->origin_var, context);
            if (begun->token != NULL) {
                begun->span = Py_NewRef((PyObject *)stand_in);
                begun->value = Py_NewRef(context);
            }
        }
    }
    Py_DECREF(around);
done:
    PyErr_Clear();
    Py_XDECREF(context);
    Py_XDECREF(stand_in);
    Py_XDECREF(real);
    Py_XDECREF(current);
    return !ask;
}

/* What was accepted of a row and of a span is known from now on. */
static void
span_remember(TaskProbe *probe, Row *row, PyObject *coroutine, PyObject *span)
{
    if (probe->span_maker == NULL || !Py_IS_TYPE(span, probe->stand_in_type)) {
        return;
    }
    StandIn *stand_in = (StandIn *)span;
    if (row->span_name == NULL && row->key != NULL && row->key == stand_in->code && PyCoro_CheckExact(coroutine)) {
        row->span_name = Py_XNewRef(stand_in->function);
    }
    if (stand_in->around != NULL && !Py_IS_TYPE(stand_in->around, probe->stand_in_type)) {
        Py_XSETREF(probe->known_span, PyWeakref_NewRef(stand_in->around, NULL));
        PyErr_Clear();
    }
}

/* A task finished soon: let go of its stand-in if nobody has the ids. As `StandIn.take_made` does, in C. */
static int
span_let_go(TaskProbe *probe, PyObject *span)
{
    if (probe->span_maker == NULL || !Py_IS_TYPE(span, probe->stand_in_type)) {
        return 0;
    }
    StandIn *stand_in = (StandIn *)span;
    if (stand_in->settled != NULL) {
        return 0;
    }
    stand_in->settled = Py_NewRef(Py_None);
    PyObject *around = stand_in->around;
    while (around != NULL && Py_IS_TYPE(around, probe->stand_in_type) && ((StandIn *)around)->settled == Py_None) {
        around = ((StandIn *)around)->around;
    }
    if (around != stand_in->around) {
        Py_XSETREF(stand_in->around, Py_XNewRef(around));
    }
    Py_CLEAR(stand_in->created_in);
    return 1;
}

/* Ask whether somebody wants to hear of a task to come, and let its context begin with the value that they name. */
static void
span_begin(TaskProbe *probe, Row *row, PyObject *coroutine, Begun *begun)
{
    memset(begun, 0, sizeof(Begun));
    if (probe->begin_span == NULL || probe->origin_var == NULL
        || (probe->span_maker != NULL && span_begin_here(probe, row, begun))) {
        return;
    }
    PyObject *asked = Py_NewRef(probe->begin_span);
    PyObject *answer = PyObject_CallOneArg(asked, coroutine);
    Py_DECREF(asked);
    if (answer == NULL) {
        listener_raised(probe);
        return;
    }
    if (PyTuple_Check(answer) && PyTuple_GET_SIZE(answer) == 2) {
        begun->span = Py_NewRef(PyTuple_GET_ITEM(answer, 0));
        begun->value = Py_NewRef(PyTuple_GET_ITEM(answer, 1));
        begun->token = PyContextVar_Set(probe->origin_var, begun->value);
        if (begun->token == NULL) {
            PyErr_Clear();
            Py_CLEAR(begun->span);
            Py_CLEAR(begun->value);
        }
        else {
            span_remember(probe, row, coroutine, begun->span);
        }
    }
    Py_DECREF(answer);
}

/* Put the variable back: the task has its copy, or was refused. */
static void
span_leave(TaskProbe *probe, Begun *begun)
{
    PyObject *type, *value, *traceback;
    PyObject *now = NULL;
    if (begun->token == NULL) {
        return;
    }
    PyErr_Fetch(&type, &value, &traceback);
    if (PyContextVar_Get(probe->origin_var, NULL, &now) < 0
        || (now == begun->value && PyContextVar_Reset(probe->origin_var, begun->token) < 0)) {
        PyErr_Clear(); /* else, not ours: a task factory has set it for good */
    }
    Py_XDECREF(now);
    Py_CLEAR(begun->value);
    Py_CLEAR(begun->token);
    PyErr_Restore(type, value, traceback);
}

/* There is no such task, or another one tells of it. */
static void
span_abandon(TaskProbe *probe, Begun *begun)
{
    Py_CLEAR(begun->account);
    if (begun->span != NULL) {
        PyObject *type, *value, *traceback;
        PyErr_Fetch(&type, &value, &traceback);
        span_forget(probe, begun->span);
        Py_CLEAR(begun->span);
        PyErr_Restore(type, value, traceback);
    }
}

/* From now on the task tells of itself. */
static void
told_attach(Live *live, Begun *begun)
{
    if (begun->span == NULL && begun->account == NULL) {
        return;
    }
    Told *told = PyMem_Calloc(1, sizeof(Told));
    if (told == NULL) {
        span_abandon(live->row->probe, begun);
        return;
    }
    told->span = begun->span;
    told->account = begun->account;
    begun->span = NULL;
    begun->account = NULL;
    told->start_delay_ns = -1;
    live_set_told(live, told);
}

static void
told_free(Told *told)
{
    PyObject *span = told->span;
    PyObject *account = (PyObject *)told->account;
    PyMem_Free(told);
    Py_XDECREF(account);
    Py_XDECREF(span);
}

/* The listener runs, and with it anything. No exception is set. A stand-in's `task_ended` only hands on to its maker. */
static void
told_call(TaskProbe *probe, Told *told, const char *outcome)
{
    PyObject *maker = Py_IS_TYPE(told->span, probe->stand_in_type) ? ((StandIn *)told->span)->maker : NULL;
    PyObject *numbers[] = {
        PyUnicode_InternFromString(outcome),          PyLong_FromLongLong(told->duration_ns),
        PyLong_FromUnsignedLong(told->steps),         PyLong_FromLongLong(told->busy_ns),
        PyLong_FromLongLong(told->start_delay_ns),
    };
    PyObject *args[] = {
        maker, told->span, numbers[0], numbers[1], told->error != NULL ? told->error : Py_None,
        told->task != NULL ? told->task : Py_None, numbers[2], numbers[3], numbers[4],
    };
    PyObject *answer = NULL;
    if (!PyErr_Occurred()) {
        answer = maker != NULL ? PyObject_VectorcallMethod(probe->state->name_make, args, 9, NULL)
                               : PyObject_VectorcallMethod(probe->state->name_task_ended, args + 1, 8, NULL);
    }
    for (size_t i = 0; i < Py_ARRAY_LENGTH(numbers); i++) {
        Py_XDECREF(numbers[i]);
    }
    if (answer == NULL) {
        listener_raised(probe);
    }
    Py_XDECREF(answer);
    told_free(told);
}

static void
told_end(Live *live, Outcome outcome, int64_t duration_ns)
{
    Told *told = live_told(live);
    TaskProbe *probe = live->row->probe;
    live_set_told(live, NULL);
    told->duration_ns = duration_ns;
    told->steps = live->steps;
    if (told->span == NULL) {
        told_free(told);
        return;
    }
    if (outcome == FINISHED && duration_ns < probe->span_threshold_ns && span_let_go(probe, told->span)) {
        told_free(told);
        return;
    }
    Py_INCREF(probe);
    static const char *const names[] = {"finished", "cancelled", "failed"};
    told_call(probe, told, names[outcome]);
    Py_DECREF(probe);
}

/* A task died while pending, in the middle of a collection maybe: it is told later. */
static void
told_later(Live *live, int64_t duration_ns)
{
    Told *told = live_told(live);
    TaskProbe *probe = live->row->probe;
    live_set_told(live, NULL);
    if (told->span == NULL) {
        told_free(told);
        return;
    }
    told->duration_ns = duration_ns;
    told->steps = live->steps;
    told->error = told->task = NULL;
    told->next = probe->died;
    probe->died = told;
}

static void
tell_of_died(TaskProbe *probe)
{
    Told *told = probe->died;
    probe->died = NULL;
    while (told != NULL) {
        Told *next = told->next;
        told_call(probe, told, "destroyed");
        told = next;
    }
}

static void
forget_died(TaskProbe *probe)
{
    Told *told = probe->died;
    probe->died = NULL;
    while (told != NULL) {
        Told *next = told->next;
        told_free(told);
        told = next;
    }
}

#endif
