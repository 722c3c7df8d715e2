/* A pool's probe: what its hook tells of work items, those that another process runs included. */

#ifndef OTEL_CONCURRENCY_POOLS_H
#define OTEL_CONCURRENCY_POOLS_H

static PyObject *
pool_wrap(PoolProbe *pool, PyObject *const *arguments, Py_ssize_t count, PyObject *keywords)
{
    PyObject *context = count == 2 ? arguments[1] : Py_None;
    if (keywords != NULL && PyTuple_GET_SIZE(keywords) == 1 && count == 1
        && PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(keywords, 0), "context") == 0) {
        context = arguments[1];
    }
    else if (count < 1 || count > 2 || (keywords != NULL && PyTuple_GET_SIZE(keywords) != 0)) {
        PyErr_SetString(PyExc_TypeError, "wrap() takes a function and a context");
        return NULL;
    }
    if (context != Py_None && !PyContext_CheckExact(context)) {
        PyErr_SetString(PyExc_TypeError, "context is a contextvars.Context or None");
        return NULL;
    }
    WorkProbe *probe = pool->probe;
    PyTypeObject *type = probe->state->work_type;
    Work *work = type != NULL ? PyObject_GC_New(Work, type) : NULL;
    if (work == NULL) {
        return PyErr_Occurred() ? NULL : PyErr_NoMemory(); /* without a type: the module is being taken apart */
    }
    work->call = work_call;
    work->function = Py_NewRef(arguments[0]);
    work->context = context != Py_None ? Py_NewRef(context) : NULL;
    work->pool = (PoolProbe *)Py_NewRef((PyObject *)pool);
    work->weak_references = NULL;
    work->generation = probe->generation;
    work->ended = 0;
    pool->row->submitted++;
    work->submitted_ns = monotonic_ns(&probe->state->clock);
    PyObject_GC_Track(work);
    return (PyObject *)work;
}

static PyObject *
pool_submitted(PoolProbe *pool, PyObject *Py_UNUSED(ignored))
{
    pool->row->submitted++;
    Py_RETURN_NONE;
}

static PyObject *
pool_rejected(PoolProbe *pool, PyObject *Py_UNUSED(ignored))
{
    pool->row->submitted++;
    pool->row->rejected++;
    Py_RETURN_NONE;
}

static PyObject *
pool_abandoned(PoolProbe *pool, PyObject *args)
{
    unsigned long long count = 1;
    if (!PyArg_ParseTuple(args, "|K", &count)) {
        return NULL;
    }
    pool->row->abandoned += count;
    Py_RETURN_NONE;
}

static PyObject *
pool_count_name(PoolProbe *pool, PyObject *counts, PyObject *name)
{
    if (!PyUnicode_CheckExact(name)) {
        PyErr_SetString(PyExc_TypeError, "a name is a str");
        return NULL;
    }
    count_name(pool->probe, counts, name);
    Py_RETURN_NONE;
}

static PyObject *
pool_unretrieved(PoolProbe *pool, PyObject *name)
{
    return pool_count_name(pool, pool->row->unretrieved, name);
}

static PyObject *
pool_crashed(PoolProbe *pool, PyObject *name)
{
    return pool_count_name(pool, pool->row->crashes, name);
}

static PyObject *
pool_done(PoolProbe *pool, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"function", "queue_ns", "run_ns", "transfer_ns", "error_type", "cancelled", "origin", NULL};
    PyObject *function;
    PyObject *transfer = Py_None;
    PyObject *error = Py_None;
    PyObject *origin = Py_None;
    long long queue_ns = -1;
    long long run_ns = -1;
    long long transfer_ns = -1;
    int cancelled = 0;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "U|$LLOOpO", names, &function, &queue_ns, &run_ns, &transfer,
                                     &error, &cancelled, &origin)) {
        return NULL;
    }
    if (transfer != Py_None && (transfer_ns = PyLong_AsLongLong(transfer)) == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (error != Py_None && !PyUnicode_CheckExact(error)) {
        PyErr_SetString(PyExc_TypeError, "error_type is a str or None");
        return NULL;
    }
    int is_true = PyObject_IsTrue(origin);
    if (is_true < 0) {
        return NULL;
    }
    End end = {.queue_ns = queue_ns, .run_ns = run_ns, .transfer_ns = transfer_ns, .origin = is_true ? origin : NULL};
    end.error_type = error != Py_None ? error : NULL;
    count_end(pool, &end, cancelled);
    FunctionRow *found = run_ns >= 0 ? function_row_named(pool->probe, pool->row, NULL, NULL, function) : NULL;
    if (found != NULL) {
        work_observe(pool->probe, &found->run_times, run_ns, end.origin);
    }
    Py_RETURN_NONE;
}

static PyObject *
pool_name_get(PoolProbe *pool, void *Py_UNUSED(closure))
{
    return Py_NewRef(pool->row->name);
}

static int
pool_traverse(PoolProbe *pool, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(pool));
    Py_VISIT(pool->probe);
    return 0;
}

static void
pool_dealloc(PoolProbe *pool)
{
    PyTypeObject *type = Py_TYPE(pool);
    PyObject_GC_UnTrack(pool);
    Py_DECREF(pool->probe);
    PyObject_GC_Del(pool);
    Py_DECREF(type);
}

static PyMethodDef pool_methods[] = {
    {"send", (PyCFunction)(void (*)(void))pool_send, METH_FASTCALL, NULL},
    {"wrap", (PyCFunction)(void (*)(void))pool_wrap, METH_FASTCALL | METH_KEYWORDS, NULL},
    {"submitted", (PyCFunction)pool_submitted, METH_NOARGS, NULL},
    {"rejected", (PyCFunction)pool_rejected, METH_NOARGS, NULL},
    {"abandoned", (PyCFunction)pool_abandoned, METH_VARARGS, NULL},
    {"unretrieved", (PyCFunction)pool_unretrieved, METH_O, NULL},
    {"crashed", (PyCFunction)pool_crashed, METH_O, NULL},
    {"done", (PyCFunction)(void (*)(void))pool_done, METH_VARARGS | METH_KEYWORDS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef pool_members[] = {
    {"is_closing", T_BOOL, offsetof(PoolProbe, is_closing), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef pool_getset[] = {
    {"name", (getter)pool_name_get, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot pool_slots[] = {
    {Py_tp_dealloc, pool_dealloc}, {Py_tp_traverse, pool_traverse}, {Py_tp_methods, pool_methods},
    {Py_tp_members, pool_members}, {Py_tp_getset, pool_getset},     {0, NULL},
};

static PyType_Spec pool_spec = {
    .name = "otel_concurrency.probes._native.PoolProbe",
    .basicsize = sizeof(PoolProbe),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC
#ifdef Py_TPFLAGS_DISALLOW_INSTANTIATION
             | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE
#endif
    ,
    .slots = pool_slots,
};

#endif
