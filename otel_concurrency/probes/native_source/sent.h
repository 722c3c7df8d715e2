/* Work items on their way to another process: the twin of probes/pure_sent.py.

   A Sent stands in the function's place in the submitting process, and counts what becomes of it: once, by whichever is
   told first. Letting go of one that nothing was told of counts it as cancelled; that, too, only bumps numbers. */

#ifndef OTEL_CONCURRENCY_SENT_H
#define OTEL_CONCURRENCY_SENT_H

typedef struct {
    PyObject_HEAD
    PyObject *function; /* NULL only while it is taken apart */
    PyObject *args;
    PyObject *parcel; /* (carrier, submitted_ns, pool name) */
    PyObject *origin; /* NULL: none worth an exemplar */
    PoolProbe *pool;
    int64_t submitted_ns;
    uint64_t generation;
    char ended;
} Sent;

/* Whether it still counts; from now on it does not. */
static int
sent_end(Sent *sent)
{
    int counts = !sent->ended && sent->generation == sent->pool->probe->generation;
    sent->ended = 1;
    return counts;
}

static PyObject *
sent_call(PyObject *self, PyObject *args, PyObject *keywords)
{
    PyObject *function = ((Sent *)self)->function;
    if (function == NULL) {
        PyErr_SetString(PyExc_ReferenceError, "the function of this work item is gone");
        return NULL;
    }
    Py_INCREF(function);
    PyObject *result = PyObject_Call(function, args, keywords);
    Py_DECREF(function);
    return result;
}

static PyObject *
sent_repr(PyObject *self)
{
    PyObject *function = ((Sent *)self)->function;
    return function != NULL ? PyObject_Repr(function) : PyUnicode_FromString("<work item>");
}

PyDoc_STRVAR(sent_reduce_doc,
"__reduce__()\n--\n\n"
"Arrive as a plain callable where nobody unwraps it.");

static PyObject *
sent_reduce(Sent *sent, PyObject *Py_UNUSED(ignored))
{
    PyObject *functools = PyImport_ImportModule("functools");
    PyObject *name = PyUnicode_InternFromString("partial"); /* the method cache keeps each text it is asked for */
    PyObject *partial = functools != NULL && name != NULL ? PyObject_GetAttr(functools, name) : NULL;
    Py_XDECREF(name);
    Py_XDECREF(functools);
    return partial != NULL ? Py_BuildValue("(N(O))", partial, sent->function != NULL ? sent->function : Py_None) : NULL;
}

static PyObject *
sent_reject(Sent *sent, PyObject *Py_UNUSED(ignored))
{
    sent->pool->row->rejected += sent_end(sent);
    Py_RETURN_NONE;
}

static PyObject *
sent_cancel(Sent *sent, PyObject *Py_UNUSED(ignored))
{
    sent->pool->row->cancelled += sent_end(sent);
    Py_RETURN_NONE;
}

static PyObject *
sent_abandon(Sent *sent, PyObject *Py_UNUSED(ignored))
{
    sent->pool->row->abandoned += sent_end(sent);
    Py_RETURN_NONE;
}

static int
ns_of(PyObject *number, int64_t *ns)
{
    long long value = PyLong_AsLongLong(number);
    *ns = value;
    return value == -1 && PyErr_Occurred() ? -1 : 0;
}

/* Count its end; `timing` NULL: unknown; `error_type` NULL: it returned. -1 with an exception: nonsense. */
static int
sent_tell(Sent *sent, int64_t now_ns, PyObject *timing, PyObject *error_type)
{
    End end = {.queue_ns = -1, .run_ns = -1, .transfer_ns = -1, .error_type = error_type, .origin = sent->origin};
    if (timing != NULL) {
        if (!PyTuple_Check(timing) || PyTuple_GET_SIZE(timing) != 2) {
            PyErr_SetString(PyExc_TypeError, "a timing is two durations");
            return -1;
        }
        if (ns_of(PyTuple_GET_ITEM(timing, 0), &end.queue_ns) < 0 || ns_of(PyTuple_GET_ITEM(timing, 1), &end.run_ns) < 0) {
            return -1;
        }
        double rest = (double)(now_ns - sent->submitted_ns) - (double)end.queue_ns - (double)end.run_ns;
        end.transfer_ns = rest > 0 ? (int64_t)rest : 0;
    }
    if (!sent_end(sent)) {
        return 0;
    }
    Py_INCREF(sent); /* naming may run code of others */
    WorkProbe *probe = sent->pool->probe;
    count_end(sent->pool, &end, 0);
    if (end.run_ns >= 0 && sent->function != NULL) {
        FunctionRow *found = function_row_of(probe, sent->pool->row, sent->function, PySequence_Fast_ITEMS(sent->args),
                                             PyTuple_GET_SIZE(sent->args));
        if (found != NULL) {
            work_observe(probe, &found->run_times, end.run_ns, end.origin);
        }
    }
    Py_DECREF(sent);
    return 0;
}

static PyObject *
sent_done(Sent *sent, PyObject *const *args, Py_ssize_t count)
{
    int64_t now_ns;
    if (count != 3 || (args[2] != Py_None && !PyUnicode_CheckExact(args[2]))) {
        PyErr_SetString(PyExc_TypeError, "done() takes a time, two durations or None, and an error's name or None");
        return NULL;
    }
    if (ns_of(args[0], &now_ns) < 0
        || sent_tell(sent, now_ns, args[1] != Py_None ? args[1] : NULL, args[2] != Py_None ? args[2] : NULL) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static int
sent_traverse(PyObject *self, visitproc visit, void *arg)
{
    Sent *sent = (Sent *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(sent->function);
    Py_VISIT(sent->args);
    Py_VISIT(sent->parcel);
    Py_VISIT(sent->origin);
    Py_VISIT(sent->pool);
    return 0;
}

/* The pool stays: letting go of it is told there. The parcel's parts make no cycle, nor do the arguments alone. */
static int
sent_clear(PyObject *self)
{
    Py_CLEAR(((Sent *)self)->function);
    Py_CLEAR(((Sent *)self)->origin);
    return 0;
}

static void
sent_dealloc(PyObject *self)
{
    Sent *sent = (Sent *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_TRASHCAN_BEGIN(self, sent_dealloc)
    sent->pool->row->cancelled += sent_end(sent);
    sent_clear(self);
    Py_DECREF(sent->args);
    Py_DECREF(sent->parcel);
    Py_DECREF(sent->pool);
    PyObject_GC_Del(self);
    Py_DECREF(type);
    Py_TRASHCAN_END
}

static PyMethodDef sent_methods[] = {
    {"__reduce__", (PyCFunction)sent_reduce, METH_NOARGS, sent_reduce_doc},
    {"reject", (PyCFunction)sent_reject, METH_NOARGS, NULL},
    {"cancel", (PyCFunction)sent_cancel, METH_NOARGS, NULL},
    {"abandon", (PyCFunction)sent_abandon, METH_NOARGS, NULL},
    {"done", (PyCFunction)(void (*)(void))sent_done, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef sent_members[] = {
    {"function", T_OBJECT_EX, offsetof(Sent, function), READONLY, NULL},
    {"parcel", T_OBJECT_EX, offsetof(Sent, parcel), READONLY, NULL},
    {"_otel_concurrency_pool", T_OBJECT_EX, offsetof(Sent, pool), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot sent_slots[] = {
    {Py_tp_dealloc, sent_dealloc}, {Py_tp_traverse, sent_traverse}, {Py_tp_clear, sent_clear},
    {Py_tp_call, sent_call},       {Py_tp_repr, sent_repr},         {Py_tp_methods, sent_methods},
    {Py_tp_members, sent_members}, {0, NULL},
};

static PyType_Spec sent_spec = {
    .name = "otel_concurrency.probes._native.Sent",
    .basicsize = sizeof(Sent),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC
#ifdef Py_TPFLAGS_DISALLOW_INSTANTIATION
             | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE
#endif
    ,
    .slots = sent_slots,
};

/* Call `capture` where there may be something to carry. */
static PyObject *
carrier_of(WorkProbe *probe, PyObject *origin, PyObject *capture)
{
    if (origin == NULL && probe->origin_var != NULL) {
        return PyDict_New();
    }
    PyObject *carrier = PyObject_CallNoArgs(capture);
    if (carrier != NULL && !PyDict_CheckExact(carrier)) {
        PyErr_SetString(PyExc_TypeError, "a carrier is a dict");
        Py_CLEAR(carrier);
    }
    return carrier;
}

static PyObject *
pool_send(PoolProbe *pool, PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 3 || !PyTuple_Check(arguments[1])) {
        PyErr_SetString(PyExc_TypeError, "send() takes a function, its positional arguments, and what captures");
        return NULL;
    }
    WorkProbe *probe = pool->probe;
    PyTypeObject *type = probe->state->sent_type;
    PyObject *function = arguments[0];
    if (type != NULL && Py_IS_TYPE(function, type) && ((Sent *)function)->function != NULL) {
        function = ((Sent *)function)->function;
    }
    int64_t submitted_ns = system_monotonic_ns(); /* compared with the worker's */
    PyObject *origin = work_origin(probe);
    PyObject *carrier = carrier_of(probe, origin, arguments[2]);
    PyObject *submitted = carrier != NULL ? PyLong_FromLongLong(submitted_ns) : NULL;
    PyObject *parcel = submitted != NULL ? PyTuple_Pack(3, carrier, submitted, pool->row->name) : NULL;
    Py_XDECREF(carrier);
    Py_XDECREF(submitted);
    Sent *sent = parcel != NULL && type != NULL ? PyObject_GC_New(Sent, type) : NULL;
    if (sent == NULL) {
        Py_XDECREF(parcel);
        Py_XDECREF(origin);
        return PyErr_Occurred() ? NULL : PyErr_NoMemory(); /* without a type: the module is being taken apart */
    }
    sent->function = Py_NewRef(function);
    sent->args = Py_NewRef(arguments[1]);
    sent->parcel = parcel;
    sent->origin = origin;
    sent->pool = (PoolProbe *)Py_NewRef((PyObject *)pool);
    sent->submitted_ns = submitted_ns;
    sent->generation = probe->generation;
    sent->ended = 0;
    pool->row->submitted++;
    PyObject_GC_Track(sent);
    return (PyObject *)sent;
}

#endif
