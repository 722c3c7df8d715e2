/* Work items on their way to a pool's workers: the twin of probes/pure_work.py.

   A Work stands in the function's place. Calling it runs the function in its context and adds to the pool's row; letting
   go of one that never ran adds to it, too. Letting go happens anywhere, in the middle of a collection for instance, so
   that only bumps numbers. What is written is plain numbers under the GIL; nothing is held across code of others. */

#ifndef OTEL_CONCURRENCY_WORK_H
#define OTEL_CONCURRENCY_WORK_H

/* Distinct name objects a row keeps pointers to; further ones, texts made anew each time, are found by their text. */
#define MAX_FUNCTION_KEYS 200

typedef struct {
    PyObject *module;   /* of the function, only compared; NULL where found by name alone */
    PyObject *qualname; /* likewise */
    PyObject *name;
    Histogram run_times;
} FunctionRow;

typedef struct {
    PyObject *name;
    PyObject *kind;
    PyObject *failed;      /* dict: exception type name -> count */
    PyObject *unretrieved; /* likewise */
    PyObject *crashes;     /* dict: reason -> count */
    PyObject *by_name;     /* dict: function name -> index into functions */
    uint64_t submitted;
    uint64_t finished;
    uint64_t cancelled;
    uint64_t rejected;
    uint64_t abandoned;
    Histogram queue_times;
    Histogram transfer_times;
    FunctionRow **functions;
    Py_ssize_t function_count;
    Py_ssize_t last_function;
} WorkRow;

typedef struct {
    PyObject_HEAD
    struct ModuleState *state;
    PyObject *module;         /* keeps `state` alive */
    PyObject *origin_var;     /* ContextVar or NULL */
    PyObject *name_of;        /* (function, args) -> name, for what is no plain function or method */
    PyObject *error_names;    /* set of exception type names and reasons in use */
    PyObject *function_names; /* set of function names in use */
    PyObject *other;          /* "_other" */
    WorkRow **rows;
    Py_ssize_t row_count;
    Py_ssize_t max_pools;
    Py_ssize_t max_functions;
    Py_ssize_t max_error_types;
    uint64_t generation; /* of resets: what was submitted in an earlier one counts nowhere */
    uint64_t lost;       /* events that memory ran out for */
    BucketTable buckets;
} WorkProbe;

typedef struct {
    PyObject_HEAD
    WorkProbe *probe;
    WorkRow *row; /* the probe's */
    char is_closing;
} PoolProbe;

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

/* --- rows --- */

static void
function_rows_free(FunctionRow **functions, Py_ssize_t count)
{
    for (Py_ssize_t i = 0; i < count; i++) {
        histogram_free(&functions[i]->run_times);
        Py_XDECREF(functions[i]->module);
        Py_XDECREF(functions[i]->qualname);
        Py_XDECREF(functions[i]->name);
        PyMem_Free(functions[i]);
    }
    PyMem_Free(functions);
}

static void
work_row_free(WorkRow *row)
{
    histogram_free(&row->queue_times);
    histogram_free(&row->transfer_times);
    function_rows_free(row->functions, row->function_count);
    Py_XDECREF(row->name);
    Py_XDECREF(row->kind);
    Py_XDECREF(row->failed);
    Py_XDECREF(row->unretrieved);
    Py_XDECREF(row->crashes);
    Py_XDECREF(row->by_name);
    PyMem_Free(row);
}

/* Everything to zero first, then let go: that may run code that counts again. */
static void
work_row_reset(WorkRow *row)
{
    FunctionRow **functions = row->functions;
    Py_ssize_t count = row->function_count;
    row->functions = NULL;
    row->function_count = row->last_function = 0;
    row->submitted = row->finished = row->cancelled = row->rejected = row->abandoned = 0;
    PyDict_Clear(row->failed);
    PyDict_Clear(row->unretrieved);
    PyDict_Clear(row->crashes);
    PyDict_Clear(row->by_name);
    histogram_reset(&row->queue_times);
    histogram_reset(&row->transfer_times);
    function_rows_free(functions, count);
}

static WorkRow *
work_row_of(WorkProbe *probe, PyObject *name, PyObject *kind)
{
    for (int attempt = 0; attempt < 2; attempt++) {
        Py_ssize_t named = 0;
        for (Py_ssize_t i = 0; i < probe->row_count; i++) {
            WorkRow *row = probe->rows[i];
            if (PyUnicode_Compare(row->kind, kind) == 0 && PyUnicode_Compare(row->name, name) == 0) {
                return row;
            }
            named += PyUnicode_Compare(row->name, probe->other) != 0;
        }
        if (attempt == 0 && named >= probe->max_pools) {
            name = probe->other;
        }
        else {
            break;
        }
    }
    WorkRow **rows = PyMem_Realloc(probe->rows, (size_t)(probe->row_count + 1) * sizeof(WorkRow *));
    if (rows == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    probe->rows = rows;
    WorkRow *row = PyMem_Calloc(1, sizeof(WorkRow));
    if (row == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    row->name = Py_NewRef(name);
    row->kind = Py_NewRef(kind);
    row->failed = PyDict_New();
    row->unretrieved = PyDict_New();
    row->crashes = PyDict_New();
    row->by_name = PyDict_New();
    if (row->failed == NULL || row->unretrieved == NULL || row->crashes == NULL || row->by_name == NULL) {
        work_row_free(row);
        return NULL;
    }
    return probe->rows[probe->row_count++] = row;
}

/* Add one to a name's count; names are bounded over the whole probe. No code of others runs: names are exact texts. */
static void
count_name(WorkProbe *probe, PyObject *counts, PyObject *name)
{
    PyObject *count = NULL;
    int known = PySet_Contains(probe->error_names, name);
    if (known == 0) {
        if (PySet_GET_SIZE(probe->error_names) >= probe->max_error_types) {
            name = probe->other;
        }
        else {
            known = PySet_Add(probe->error_names, name);
        }
    }
    if (known >= 0) {
        PyObject *before = PyDict_GetItemWithError(counts, name);
        count = PyLong_FromUnsignedLongLong((before != NULL ? PyLong_AsUnsignedLongLong(before) : 0) + 1);
    }
    if (count == NULL || PyDict_SetItem(counts, name, count) < 0) {
        PyErr_Clear();
        probe->lost++;
    }
    Py_XDECREF(count);
}

/* --- run times by function --- */

static FunctionRow *
function_row_new(WorkRow *row, PyObject *module, PyObject *qualname, PyObject *name)
{
    FunctionRow **functions =
        PyMem_Realloc(row->functions, (size_t)(row->function_count + 1) * sizeof(FunctionRow *));
    if (functions == NULL) {
        return NULL;
    }
    row->functions = functions;
    FunctionRow *function = PyMem_Calloc(1, sizeof(FunctionRow));
    PyObject *index = PyLong_FromSsize_t(row->function_count);
    if (function == NULL || index == NULL
        || (PyDict_GetItemWithError(row->by_name, name) == NULL && PyDict_SetItem(row->by_name, name, index) < 0)) {
        Py_XDECREF(index);
        PyMem_Free(function);
        PyErr_Clear();
        return NULL;
    }
    Py_DECREF(index);
    function->module = Py_XNewRef(module);
    function->qualname = Py_XNewRef(qualname);
    function->name = Py_NewRef(name);
    return row->functions[row->function_count++] = function;
}

/* The row of a name, NULL without memory. With `qualname`, the next time it is found by its pointers. */
static FunctionRow *
function_row_named(WorkProbe *probe, WorkRow *row, PyObject *module, PyObject *qualname, PyObject *name)
{
    int known = PySet_Contains(probe->function_names, name);
    if (known == 0) {
        if (PySet_GET_SIZE(probe->function_names) >= probe->max_functions) {
            name = probe->other;
            module = qualname = NULL;
        }
        else {
            known = PySet_Add(probe->function_names, name);
        }
    }
    if (known < 0) {
        PyErr_Clear();
        return NULL;
    }
    PyObject *index = PyDict_GetItemWithError(row->by_name, name);
    if (index != NULL && (qualname == NULL || row->function_count >= MAX_FUNCTION_KEYS)) {
        return row->functions[PyLong_AsSsize_t(index)];
    }
    return function_row_new(row, module, qualname, name);
}

/* The row of what a work item ran; NULL when memory or names fail. */
static FunctionRow *
function_row_of(WorkProbe *probe, WorkRow *row, PyObject *function, PyObject *const *args, Py_ssize_t count)
{
    if (PyMethod_Check(function)) {
        function = PyMethod_GET_FUNCTION(function);
    }
    PyObject *name;
    PyObject *module = NULL;
    PyObject *qualname = NULL;
    if (PyFunction_Check(function)) {
        module = ((PyFunctionObject *)function)->func_module;
        qualname = ((PyFunctionObject *)function)->func_qualname;
        Py_ssize_t last = row->last_function;
        if (last < row->function_count && row->functions[last]->qualname == qualname
            && row->functions[last]->module == module) {
            return row->functions[last];
        }
        for (Py_ssize_t i = 0; i < row->function_count; i++) {
            if (row->functions[i]->qualname == qualname && row->functions[i]->module == module) {
                row->last_function = i;
                return row->functions[i];
            }
        }
        /* Held while used: a function may be given another name by another thread. */
        Py_XINCREF(module);
        Py_INCREF(qualname);
        name = qualified_name(module, qualname);
    }
    else {
        PyObject *arguments = PyTuple_New(count);
        for (Py_ssize_t i = 0; arguments != NULL && i < count; i++) {
            PyTuple_SET_ITEM(arguments, i, Py_NewRef(args[i]));
        }
        name = arguments != NULL ? PyObject_CallFunctionObjArgs(probe->name_of, function, arguments, NULL) : NULL;
        Py_XDECREF(arguments);
    }
    FunctionRow *found = NULL;
    if (name != NULL && PyUnicode_CheckExact(name)) {
        found = function_row_named(probe, row, module, qualname, name);
    }
    Py_XDECREF(module);
    Py_XDECREF(qualname);
    Py_XDECREF(name);
    if (found == NULL) {
        PyErr_Clear();
        probe->lost++;
    }
    return found;
}

/* What was current, where it is worth an exemplar; a new reference or NULL. */
static PyObject *
work_origin(WorkProbe *probe)
{
    PyObject *origin = NULL;
    if (probe->origin_var != NULL && PyContextVar_Get(probe->origin_var, NULL, &origin) < 0) {
        PyErr_Clear();
    }
    if (origin != NULL && (origin == Py_None || (PyDict_Check(origin) && PyDict_GET_SIZE(origin) == 0))) {
        Py_CLEAR(origin);
    }
    return origin;
}

/* `origin` is what exemplars keep, NULL for none. */
static void
work_observe(WorkProbe *probe, Histogram *histogram, int64_t ns, PyObject *origin)
{
    int position = histogram_observe(histogram, &probe->buckets, ns);
    if (position >= 0 && origin != NULL) {
        histogram_keep_exemplar(histogram, position, ns, unix_ns(), Py_NewRef(origin));
    }
}

/* --- Work --- */

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
    work_observe(probe, &row->queue_times, began_ns - work->submitted_ns, origin);
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

/* --- PoolProbe --- */

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

/* The end of a work item that was timed elsewhere; times below 0 are unknown, what is NULL is none. */
typedef struct {
    int64_t queue_ns;
    int64_t run_ns;
    int64_t transfer_ns;
    PyObject *error_type;
    PyObject *origin;
} End;

/* Count all of it but the run time: that belongs to a function, which is to be looked for after this. */
static void
count_end(PoolProbe *pool, const End *end, int cancelled)
{
    WorkProbe *probe = pool->probe;
    WorkRow *row = pool->row;
    if (end->error_type != NULL) {
        count_name(probe, row->failed, end->error_type);
    }
    else if (cancelled) {
        row->cancelled++;
    }
    else {
        row->finished++;
    }
    if (end->queue_ns >= 0) {
        work_observe(probe, &row->queue_times, end->queue_ns, end->origin);
    }
    if (end->transfer_ns >= 0) {
        work_observe(probe, &row->transfer_times, end->transfer_ns, end->origin);
    }
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

#include "sent.h"

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

/* --- WorkProbe --- */

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
run_times_read(WorkRow *row)
{
    PyObject *result = PyList_New(0);
    for (Py_ssize_t i = 0; result != NULL && i < row->function_count; i++) {
        PyObject *name = Py_NewRef(row->functions[i]->name);
        PyObject *times = histogram_read(&row->functions[i]->run_times);
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
            histogram_read(&row->queue_times), histogram_read(&row->transfer_times), run_times_read(row),
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
"WorkProbe(name_of, *, max_pools, max_functions, max_error_types, origin=None)\n--\n\n"
"Numbers of work items by pool.\n\n"
"Args:\n"
"    name_of: Called with (function, args) for the name of what is no plain function.\n"
"    max_pools: Names kept; further pools share the row `_other` of their kind.\n"
"    max_functions: Function names kept over all pools, then `_other`.\n"
"    max_error_types: Exception type names kept over all pools, then `_other`.\n"
"    origin: Context variable whose value exemplars keep.");

static int
work_probe_init(WorkProbe *probe, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"name_of", "max_pools", "max_functions", "max_error_types", "origin", NULL};
    PyObject *name_of;
    PyObject *origin = Py_None;
    Py_ssize_t max_pools = -1;
    Py_ssize_t max_functions = -1;
    Py_ssize_t max_error_types = -1;
    if (probe->name_of != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "a WorkProbe is initialised once");
        return -1;
    }
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$nnnO", names, &name_of, &max_pools, &max_functions,
                                     &max_error_types, &origin)) {
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
