/* The probe of all pools: makes theirs, and reads their rows. */

#ifndef OTEL_CONCURRENCY_WORK_PROBE_H
#define OTEL_CONCURRENCY_WORK_PROBE_H

PyDoc_STRVAR(work_pool_doc,
"pool(name, kind, /)\n--\n\n"
"Return a new pool's probe; pools of one name and kind share a row.");

static PyObject *
work_probe_pool(WorkProbe *probe, PyObject *args)
{
    PyObject *name;
    PyObject *kind;
    if (!PyArg_ParseTuple(args, "UU", &name, &kind)) {
        return NULL;
    }
    if (probe->name_of == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "this WorkProbe was not initialised");
        return NULL;
    }
    WorkRow *row = work_row_of(probe, name, kind);
    PyTypeObject *type = probe->state->pool_type;
    PoolProbe *pool = row != NULL && type != NULL ? PyObject_GC_New(PoolProbe, type) : NULL;
    if (pool == NULL && !PyErr_Occurred()) {
        PyErr_NoMemory();
    }
    if (pool != NULL) {
        pool->probe = (WorkProbe *)Py_NewRef((PyObject *)probe);
        pool->row = row;
        pool->is_closing = 0;
        PyObject_GC_Track(pool);
    }
    return (PyObject *)pool;
}

static PyObject *
run_times_read(WorkRow *row, PyObject *(*read)(Histogram *))
{
    PyObject *result = PyList_New(0);
    for (Py_ssize_t i = 0; result != NULL && i < row->function_count; i++) {
        PyObject *name = Py_NewRef(row->functions[i]->name);
        PyObject *times = read(&row->functions[i]->run_times);
        PyObject *item = times != NULL ? PyTuple_Pack(2, name, times) : NULL;
        Py_DECREF(name);
        Py_XDECREF(times);
        if (item == NULL || PyList_Append(result, item) < 0) {
            Py_CLEAR(result);
        }
        Py_XDECREF(item);
    }
    return result;
}

PyDoc_STRVAR(work_read_doc,
"read()\n--\n\n"
"Return what each pool's row holds, exemplars drained.");

static PyObject *
work_probe_read(WorkProbe *probe, PyObject *Py_UNUSED(ignored))
{
    PyObject *result = PyList_New(0);
    clock_adjust(&probe->state->clock);
    for (Py_ssize_t i = 0; result != NULL && i < probe->row_count; i++) {
        WorkRow *row = probe->rows[i];
        unsigned long long numbers[] = {row->submitted, row->finished, row->cancelled, row->rejected, row->abandoned};
        PyObject *parts[] = {
            PyDict_Copy(row->failed),          PyDict_Copy(row->unretrieved),        PyDict_Copy(row->crashes),
            histogram_read(&row->queue_times), histogram_read(&row->transfer_times), run_times_read(row, histogram_read),
        };
        int ok = 1;
        for (size_t k = 0; k < Py_ARRAY_LENGTH(parts); k++) {
            ok = ok && parts[k] != NULL;
        }
        PyObject *item = !ok ? NULL
                             : Py_BuildValue("(OOKKKOKKOOOOO)", row->name, row->kind, numbers[0], numbers[1], numbers[2],
                                             parts[0], numbers[3], numbers[4], parts[1], parts[2], parts[3], parts[4],
                                             parts[5]);
        for (size_t k = 0; k < Py_ARRAY_LENGTH(parts); k++) {
            Py_XDECREF(parts[k]);
        }
        if (item == NULL || PyList_Append(result, item) < 0) {
            Py_CLEAR(result);
        }
        Py_XDECREF(item);
    }
    return result;
}

/* Work items of a row that have not ended. */
static long long
work_row_live(WorkRow *row)
{
    long long live = (long long)(row->submitted - row->finished - row->cancelled - row->rejected - row->abandoned);
    PyObject *name;
    PyObject *count;
    Py_ssize_t place = 0;
    while (PyDict_Next(row->failed, &place, &name, &count)) {
        live -= PyLong_AsLongLong(count);
    }
    return live;
}

PyDoc_STRVAR(work_peek_doc,
"peek()\n--\n\n"
"Return (pool name, kind, submitted, live, queue times, transfer times, run times) of each row; nothing is drained.");

static PyObject *
work_probe_peek(WorkProbe *probe, PyObject *Py_UNUSED(ignored))
{
    PyObject *result = PyList_New(0);
    clock_adjust(&probe->state->clock);
    for (Py_ssize_t i = 0; result != NULL && i < probe->row_count; i++) {
        WorkRow *row = probe->rows[i];
        unsigned long long submitted = row->submitted;
        long long live = work_row_live(row);
        PyObject *queued = histogram_peek(&row->queue_times);
        PyObject *transferred = queued != NULL ? histogram_peek(&row->transfer_times) : NULL;
        PyObject *run = transferred != NULL ? run_times_read(row, histogram_peek) : NULL;
        PyObject *item = run != NULL
                             ? Py_BuildValue("(OOKLOOO)", row->name, row->kind, submitted, live, queued, transferred,
                                             run)
                             : NULL;
        Py_XDECREF(queued);
        Py_XDECREF(transferred);
        Py_XDECREF(run);
        if (item == NULL || PyList_Append(result, item) < 0) {
            Py_CLEAR(result);
        }
        Py_XDECREF(item);
    }
    return result;
}

PyDoc_STRVAR(work_reset_doc,
"reset()\n--\n\n"
"Begin at zero, as a forked child must; work submitted before it counts nowhere any more.");

static PyObject *
work_probe_reset(WorkProbe *probe, PyObject *Py_UNUSED(ignored))
{
    probe->generation++;
    probe->lost = 0;
    PySet_Clear(probe->error_names);
    PySet_Clear(probe->function_names);
    for (Py_ssize_t i = 0; i < probe->row_count; i++) {
        work_row_reset(probe->rows[i]);
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(work_probe_doc,
"WorkProbe(name_of, *, max_pools, max_functions, max_error_types, origin=None, span_key=None)\n--\n\n"
"Numbers of work items by pool.\n\n"
"Args:\n"
"    name_of: Called with (function, args) for the name of what is no plain function.\n"
"    max_pools: Names kept; further pools share the row `_other` of their kind.\n"
"    max_functions: Function names kept over all pools, then `_other`.\n"
"    max_error_types: Exception type names kept over all pools, then `_other`.\n"
"    origin: Context variable whose value exemplars keep.\n"
"    span_key: Under which such a value holds the span whose account hears of waiting.");

static int
work_probe_init(WorkProbe *probe, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"name_of", "max_pools", "max_functions", "max_error_types", "origin", "span_key",
                            NULL};
    PyObject *name_of;
    PyObject *origin = Py_None;
    PyObject *span_key = Py_None;
    Py_ssize_t max_pools = -1;
    Py_ssize_t max_functions = -1;
    Py_ssize_t max_error_types = -1;
    if (probe->name_of != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "a WorkProbe is initialised once");
        return -1;
    }
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$nnnOO", names, &name_of, &max_pools, &max_functions,
                                     &max_error_types, &origin, &span_key)) {
        return -1;
    }
    if (!PyCallable_Check(name_of) || (origin != Py_None && !PyContextVar_CheckExact(origin))) {
        PyErr_SetString(PyExc_TypeError, "name_of is callable, and origin a ContextVar or None");
        return -1;
    }
    if (max_pools < 0 || max_functions < 0 || max_error_types < 0) {
        PyErr_SetString(PyExc_ValueError, "limits are at least 0");
        return -1;
    }
    probe->error_names = PySet_New(NULL);
    probe->function_names = PySet_New(NULL);
    probe->other = PyUnicode_FromString("_other");
    if (probe->error_names == NULL || probe->function_names == NULL || probe->other == NULL) {
        return -1;
    }
    probe->max_pools = max_pools;
    probe->max_functions = max_functions;
    probe->max_error_types = max_error_types;
    probe->origin_var = origin != Py_None ? Py_NewRef(origin) : NULL;
    probe->span_key = span_key != Py_None ? Py_NewRef(span_key) : NULL;
    bucket_table_init(&probe->buckets);
    probe->name_of = Py_NewRef(name_of);
    return 0;
}

static PyObject *
work_probe_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    WorkProbe *probe = (WorkProbe *)type->tp_alloc(type, 0); /* all zero */
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
work_row_traverse(WorkRow *row, visitproc visit, void *arg)
{
    int result = histogram_traverse(&row->queue_times, visit, arg);
    if (result == 0) {
        result = histogram_traverse(&row->transfer_times, visit, arg);
    }
    for (Py_ssize_t i = 0; result == 0 && i < row->function_count; i++) {
        result = histogram_traverse(&row->functions[i]->run_times, visit, arg);
    }
    return result;
}

static int
work_probe_traverse(WorkProbe *probe, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(probe));
    Py_VISIT(probe->module);
    Py_VISIT(probe->origin_var);
    Py_VISIT(probe->span_key);
    Py_VISIT(probe->name_of);
    for (Py_ssize_t i = 0; i < probe->row_count; i++) {
        int result = work_row_traverse(probe->rows[i], visit, arg);
        if (result != 0) {
            return result;
        }
    }
    return 0;
}

/* A pool's probe keeps this one, so no row goes while someone points at it. `name_of` is one of ours and stays. */
static int
work_probe_clear(WorkProbe *probe)
{
    Py_CLEAR(probe->origin_var);
    Py_CLEAR(probe->span_key);
    for (Py_ssize_t i = 0; i < probe->row_count; i++) {
        WorkRow *row = probe->rows[i];
        histogram_drop_exemplars(&row->queue_times);
        histogram_drop_exemplars(&row->transfer_times);
        for (Py_ssize_t k = 0; k < row->function_count; k++) {
            histogram_drop_exemplars(&row->functions[k]->run_times);
        }
    }
    return 0;
}

static void
work_probe_dealloc(WorkProbe *probe)
{
    PyTypeObject *type = Py_TYPE(probe);
    PyObject_GC_UnTrack(probe);
    work_probe_clear(probe);
    for (Py_ssize_t i = 0; i < probe->row_count; i++) {
        work_row_free(probe->rows[i]);
    }
    PyMem_Free(probe->rows);
    Py_XDECREF(probe->name_of);
    Py_XDECREF(probe->error_names);
    Py_XDECREF(probe->function_names);
    Py_XDECREF(probe->other);
    Py_XDECREF(probe->module);
    type->tp_free((PyObject *)probe);
    Py_DECREF(type);
}

static PyMethodDef work_probe_methods[] = {
    {"pool", (PyCFunction)work_probe_pool, METH_VARARGS, work_pool_doc},
    {"read", (PyCFunction)work_probe_read, METH_NOARGS, work_read_doc},
    {"peek", (PyCFunction)work_probe_peek, METH_NOARGS, work_peek_doc},
    {"reset", (PyCFunction)work_probe_reset, METH_NOARGS, work_reset_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef work_probe_members[] = {
    {"lost", T_ULONGLONG, offsetof(WorkProbe, lost), READONLY, "Events that memory ran out for."},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot work_probe_slots[] = {
    {Py_tp_new, work_probe_new},           {Py_tp_init, work_probe_init},   {Py_tp_dealloc, work_probe_dealloc},
    {Py_tp_traverse, work_probe_traverse}, {Py_tp_clear, work_probe_clear}, {Py_tp_methods, work_probe_methods},
    {Py_tp_members, work_probe_members},   {Py_tp_doc, (void *)work_probe_doc}, {0, NULL},
};

static PyType_Spec work_probe_spec = {
    .name = "otel_concurrency.probes._native.WorkProbe",
    .basicsize = sizeof(WorkProbe),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = work_probe_slots,
};

#endif
