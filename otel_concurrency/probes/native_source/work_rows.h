/* What is kept of work items: a row per pool, and in it the run times per function. A row lives as long as its probe, and
   whoever points at it keeps that. All of it is guarded by the GIL; nothing is held across code of others. */

#ifndef OTEL_CONCURRENCY_WORK_ROWS_H
#define OTEL_CONCURRENCY_WORK_ROWS_H

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
    PyObject *span_key;       /* of the current span in a value of it, or NULL */
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

/* A work item has waited for a worker: tell the request that it is part of, too. */
static void
work_waited(WorkProbe *probe, WorkRow *row, int64_t ns, PyObject *origin)
{
    account_add_wait(account_in(probe->state, probe->span_key, origin), EXECUTOR, ns);
    work_observe(probe, &row->queue_times, ns, origin);
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
        work_waited(probe, row, end->queue_ns, end->origin);
    }
    if (end->transfer_ns >= 0) {
        work_observe(probe, &row->transfer_times, end->transfer_ns, end->origin);
    }
}

#endif
