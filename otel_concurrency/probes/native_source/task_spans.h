/* What is told of single tasks, to whoever makes spans: only of those that somebody wanted to hear of when they were
   created. A probe that nobody asked for spans pays one comparison a task. */

#ifndef OTEL_CONCURRENCY_TASK_SPANS_H
#define OTEL_CONCURRENCY_TASK_SPANS_H

/* Of a live task; the pointer to it is all that other tasks carry. */
typedef struct Told {
    PyObject *span;
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

/* Ask whether somebody wants to hear of a task to come, and let its context begin with the value that they name. */
static void
span_begin(TaskProbe *probe, PyObject *coroutine, Begun *begun)
{
    memset(begun, 0, sizeof(Begun));
    if (probe->begin_span == NULL || probe->origin_var == NULL) {
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
    if (begun->span == NULL) {
        return;
    }
    Told *told = PyMem_Calloc(1, sizeof(Told));
    if (told == NULL) {
        span_abandon(live->row->probe, begun);
        return;
    }
    told->span = begun->span;
    begun->span = NULL;
    told->start_delay_ns = -1;
    live->told = told;
}

static void
told_free(Told *told)
{
    PyObject *span = told->span;
    PyMem_Free(told);
    Py_XDECREF(span);
}

/* The listener runs, and with it anything. No exception is set. */
static void
told_call(TaskProbe *probe, Told *told, const char *outcome)
{
    PyObject *answer = PyObject_CallMethod(told->span, "task_ended", "sLOOILL", outcome, (long long)told->duration_ns,
                                           told->error != NULL ? told->error : Py_None,
                                           told->task != NULL ? told->task : Py_None, (unsigned int)told->steps,
                                           (long long)told->busy_ns, (long long)told->start_delay_ns);
    if (answer == NULL) {
        listener_raised(probe);
    }
    Py_XDECREF(answer);
    told_free(told);
}

static void
told_end(Live *live, const char *outcome, int64_t duration_ns)
{
    Told *told = live->told;
    TaskProbe *probe = live->row->probe;
    live->told = NULL;
    told->duration_ns = duration_ns;
    told->steps = live->steps;
    Py_INCREF(probe);
    told_call(probe, told, outcome);
    Py_DECREF(probe);
}

/* A task died while pending, in the middle of a collection maybe: it is told later. */
static void
told_later(Live *live, int64_t duration_ns)
{
    Told *told = live->told;
    TaskProbe *probe = live->row->probe;
    live->told = NULL;
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
