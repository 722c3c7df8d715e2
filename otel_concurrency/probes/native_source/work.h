/* Work items on their way to a pool's workers: the twin of probes/pure_work.py.

   A Work stands in the function's place. Calling it runs the function in its context and adds to the pool's row; letting
   go of one that never ran adds to it, too. Letting go happens anywhere, in the middle of a collection for instance, so
   that only bumps numbers. */

#ifndef OTEL_CONCURRENCY_WORK_H
#define OTEL_CONCURRENCY_WORK_H

typedef struct {
    PyObject_HEAD
    vectorcallfunc call;
    PyObject *function; /* NULL only while it is taken apart */
    PyObject *context;  /* NULL: the caller's */
    PoolProbe *pool;
    PyObject *weak_references;
    int64_t submitted_ns;
    uint64_t generation;
    char ended; /* ran, or was refused */
} Work;

/* Count the end of a run, inside its context and with no exception set. `error` is the type of what it raised. */
static void
work_ended(Work *work, PyTypeObject *error, int64_t began_ns, int64_t ended_ns, PyObject *const *args, Py_ssize_t count)
{
    WorkProbe *probe = work->pool->probe;
    WorkRow *row = work->pool->row;
    if (work->generation != probe->generation) {
        return;
    }
    if (error != NULL) {
        PyObject *name = type_name(error);
        if (name != NULL) {
            count_name(probe, row->failed, name);
            Py_DECREF(name);
        }
        else {
            PyErr_Clear();
            probe->lost++;
        }
    }
    else {
        row->finished++;
    }
    PyObject *origin = work_origin(probe);
    work_waited(probe, row, began_ns - work->submitted_ns, origin);
    FunctionRow *function = function_row_of(probe, row, work->function, args, count);
    if (function != NULL) {
        work_observe(probe, &function->run_times, ended_ns - began_ns, origin);
    }
    Py_XDECREF(origin);
}

static PyObject *
work_call(PyObject *self, PyObject *const *args, size_t flags, PyObject *keywords)
{
    Work *work = (Work *)self;
    PyObject *function = work->function;
    PyObject *context = work->context;
    if (function == NULL) {
        PyErr_SetString(PyExc_ReferenceError, "the function of this work item is gone");
        return NULL;
    }
    int counts = !work->ended;
    const Clock *clock = &work->pool->probe->state->clock;
    int64_t began_ns = counts ? monotonic_ns(clock) : 0;
    work->ended = 1;
    Py_INCREF(self);
    int entered = context == NULL || PyContext_Enter(context) == 0; /* one that is entered already refuses */
    PyObject *result = entered ? PyObject_Vectorcall(function, args, flags, keywords) : NULL;
    if (counts) {
        int64_t ended_ns = monotonic_ns(clock);
        PyObject *type = NULL, *value = NULL, *traceback = NULL;
        if (result == NULL) {
            PyErr_Fetch(&type, &value, &traceback);
        }
        work_ended(work, (PyTypeObject *)type, began_ns, ended_ns, args, PyVectorcall_NARGS(flags));
        if (result == NULL) {
            PyErr_Restore(type, value, traceback);
        }
    }
    if (context != NULL && entered && PyContext_Exit(context) < 0) {
        Py_CLEAR(result);
    }
    Py_DECREF(self);
    return result;
}

static void
work_dealloc(PyObject *self)
{
    Work *work = (Work *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_TRASHCAN_BEGIN(self, work_dealloc)
    if (work->weak_references != NULL) {
        PyObject_ClearWeakRefs(self);
    }
    if (!work->ended && work->generation == work->pool->probe->generation) {
        if (work->pool->is_closing) {
            work->pool->row->abandoned++;
        }
        else {
            work->pool->row->cancelled++;
        }
    }
    Py_CLEAR(work->function);
    Py_CLEAR(work->context);
    Py_DECREF(work->pool);
    PyObject_GC_Del(self);
    Py_DECREF(type);
    Py_TRASHCAN_END
}

static int
work_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((Work *)self)->function);
    Py_VISIT(((Work *)self)->context);
    Py_VISIT(((Work *)self)->pool);
    return 0;
}

/* The pool stays: letting go of unrun work is told there. */
static int
work_clear(PyObject *self)
{
    Py_CLEAR(((Work *)self)->function);
    Py_CLEAR(((Work *)self)->context);
    return 0;
}

static PyObject *
work_reject(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Work *work = (Work *)self;
    if (!work->ended && work->generation == work->pool->probe->generation) {
        work->pool->row->rejected++;
    }
    work->ended = 1;
    Py_RETURN_NONE;
}

static PyObject *
work_repr(PyObject *self)
{
    PyObject *function = ((Work *)self)->function;
    return function != NULL ? PyObject_Repr(function) : PyUnicode_FromString("<work item>");
}

/* It looks like its function; only what is its own comes from here. */
static PyObject *
work_getattro(PyObject *self, PyObject *name)
{
    PyObject *own = PyObject_GenericGetAttr(self, name);
    PyObject *function = ((Work *)self)->function;
    if (own != NULL || function == NULL || !PyErr_ExceptionMatches(PyExc_AttributeError)) {
        return own;
    }
    PyErr_Clear();
    return PyObject_GetAttr(function, name);
}

static PyMethodDef work_methods[] = {
    {"reject", work_reject, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef work_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Work, call), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Work, weak_references), READONLY, NULL},
    {"__wrapped__", T_OBJECT_EX, offsetof(Work, function), READONLY, NULL},
    {"_otel_concurrency_pool", T_OBJECT_EX, offsetof(Work, pool), READONLY, NULL},
    {"_otel_concurrency_context", T_OBJECT, offsetof(Work, context), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot work_slots[] = {
    {Py_tp_dealloc, work_dealloc}, {Py_tp_traverse, work_traverse}, {Py_tp_clear, work_clear},
    {Py_tp_call, PyVectorcall_Call}, {Py_tp_getattro, work_getattro}, {Py_tp_repr, work_repr},
    {Py_tp_methods, work_methods}, {Py_tp_members, work_members}, {0, NULL},
};

static PyType_Spec work_spec = {
    .name = "otel_concurrency.probes._native.Work",
    .basicsize = sizeof(Work),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL
#ifdef Py_TPFLAGS_DISALLOW_INSTANTIATION
             | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE
#endif
    ,
    .slots = work_slots,
};

#endif
