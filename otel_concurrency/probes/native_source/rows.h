/* What is kept: a row per coroutine function, a row per event loop, a slot per thread. Rows live as long as their probe,
   so a task may point at its row without owning it. Everything is guarded by the GIL of the probe's interpreter. */

#ifndef OTEL_CONCURRENCY_ROWS_H
#define OTEL_CONCURRENCY_ROWS_H

#define MAX_WAIT_ROWS 4096
#define MAX_LOOPS 16 /* then all others share a row, asyncio.eventloop.id "other" */

typedef enum { FINISHED, CANCELLED, FAILED, DESTROYED } Outcome;
typedef enum { SCHEDULED, WAITING, RUNNING, STATE_COUNT } State;

struct TaskProbe;
struct ModuleState;

/* One step that is under way; they nest where eager tasks or nested loops do. */
typedef struct Step {
    struct Row *row;
    struct Live *live;
    struct Step *outer;
    int64_t began_ns;
} Step;

typedef struct Row {
    struct TaskProbe *probe;
    PyObject *key;  /* code object, or the type of what is no coroutine function's; NULL for the row of all others */
    PyObject *name; /* module.qualname */
    PyObject *span_name; /* the same, of tasks that may have spans; NULL: ask */
    PyObject *failed; /* dict: exception type name -> count */
    uint64_t created;
    uint64_t finished;
    uint64_t cancelled;
    uint64_t destroyed;
    uint64_t failures;
    uint64_t steps;
    int64_t busy_ns;
    Histogram durations[3]; /* by Outcome; a destroyed task has no end to measure */
    Histogram start_delays;
    Histogram step_durations;
} Row;

/* The live tasks of a loop are a doubly linked list in order of creation: the first one is the oldest. */
typedef struct Live {
    struct Live *older;
    struct Live *newer;
    Row *row;
    int64_t created_ns;
    uint32_t steps;
    uint8_t loop;  /* index into TaskProbe.loops */
    uint8_t state; /* State */
    uint8_t counted : 1;
    uint8_t done : 1;
    uint8_t watched : 1; /* the numbers of an Entry, not of a Proxy */
    uint8_t has_told : 1; /* it is a ToldLive, and somebody wants to hear of this task */
    uint8_t waits : 1; /* the table of waits has what for, and since when */
    uint8_t is_owner : 1; /* a request began in it: the table of owners has its account */
} Live;

/* With room for who wants to hear; most entries have none, for the sake of 16 bytes. */
typedef struct {
    Live live;
    struct Told *told;
} ToldLive;

static inline struct Told *
live_told(Live *live)
{
    return live->has_told ? ((ToldLive *)live)->told : NULL;
}

static inline void
live_set_told(Live *live, struct Told *told)
{
    ((ToldLive *)live)->told = told;
    live->has_told = told != NULL;
}

typedef struct {
    PyObject *reference; /* weak reference to the loop; NULL: free */
    PyObject *loop;      /* borrowed, only ever compared, and only while the reference is alive */
    const char *type;
    int64_t states[STATE_COUNT];
    Live *oldest;
    Live *newest;
} Loop;

/* What tasks waited for, of one kind and name. */
typedef struct {
    uint64_t contentions;
    int64_t waiting; /* now */
    int64_t wait_ns; /* of waits that are over */
    Histogram durations;
} WaitRow;

/* A step that took long, as it is kept until somebody asks. */
#define MAX_SLOW_STEPS 64

typedef struct {
    PyObject *name;   /* of its row */
    PyObject *origin; /* value of the origin variable, or NULL */
    unsigned long ident;
    int64_t ended_ns; /* CLOCK_MONOTONIC */
    int64_t busy_ns;
    int64_t cpu_ns; /* the thread's CPU time at its end; -1: unknown */
} SlowStep;

typedef struct TaskProbe {
    PyObject_HEAD
    struct ModuleState *state;
    PyObject *module; /* keeps `state` alive */
    PyObject *origin_var;      /* ContextVar or NULL */
    PyObject *cancelled_error; /* asyncio.CancelledError, or a pair of it and trio.Cancelled */
    PyObject *carrier; /* code of the coroutines that only carry another, or NULL */
    PyObject *carried; /* called with one of those; returns what to name it by */
    PyObject *current_tasks;   /* asyncio's dict: loop -> task, or NULL */
    PyObject *foreign;         /* callable for what this probe cannot follow, or NULL */
    PyObject *loop_ids;        /* callable: loop -> (id, type), or NULL for ids of its own */
    PyObject *begin_span;      /* callable: coroutine -> (span, value of the origin variable) or None, or NULL */
    PyObject *span_maker;      /* NULL: begin_span is asked each time */
    PyObject *span_key;        /* of the current span in a value of the origin variable */
    PyObject *known_span;      /* weak reference to one that begin_span has accepted */
    PyTypeObject *stand_in_type;
    PyTypeObject *context_type;
    int64_t span_threshold_ns; /* a task that took less, and finished, tells nothing by itself */
    struct Told *died;         /* tasks that died while pending, and that somebody wants to hear of */
    PyObject *error_names;     /* set of exception type names in use */
    Row **rows;
    Row **slots; /* open addressing by key */
    Py_ssize_t row_count; /* rows[0] is the row of all others */
    Py_ssize_t max_rows;
    Py_ssize_t max_error_types;
    size_t slot_mask;
    uint64_t lost; /* events that memory ran out for */
    int64_t slow_ns; /* from when on a step is kept as slow */
    SlowStep slow_steps[MAX_SLOW_STEPS];
    int slow_count; /* those beyond the room are counted in `lost` */
    struct Wait *waits; /* placed by the address of the task */
    size_t wait_mask;
    size_t wait_count;
    WaitRow *wait_rows;
    int wait_row_count;
    Loop loops[MAX_LOOPS + 1];
    BucketTable buckets;
} TaskProbe;

static size_t
pointer_hash(const void *pointer)
{
    uintptr_t bits = (uintptr_t)pointer;
    return (size_t)((bits >> 4) * (uintptr_t)0x9E3779B97F4A7C15ull >> 17);
}

static PyObject *
qualified_name(PyObject *module, PyObject *qualname)
{
    if (module == NULL || !PyUnicode_Check(module) || PyUnicode_GET_LENGTH(module) == 0) {
        return Py_NewRef(qualname);
    }
    return PyUnicode_FromFormat("%U.%U", module, qualname);
}

/* `module.qualname` of a type, without `builtins.`. */
static PyObject *
type_name(PyTypeObject *type)
{
    PyObject *module = PyObject_GetAttrString((PyObject *)type, "__module__");
    PyObject *qualname = PyObject_GetAttrString((PyObject *)type, "__qualname__");
    PyObject *name = NULL;
    if (qualname != NULL && PyUnicode_Check(qualname)) {
        int plain = module == NULL || !PyUnicode_Check(module)
                    || PyUnicode_CompareWithASCIIString(module, "builtins") == 0;
        name = qualified_name(plain ? NULL : module, qualname);
    }
    Py_XDECREF(module);
    Py_XDECREF(qualname);
    PyErr_Clear();
    return name != NULL ? name : PyUnicode_FromString(type->tp_name);
}

/* `module.qualname` of the function that a coroutine came from, `code` being its code object. */
static PyObject *
coroutine_name(PyObject *coroutine, PyObject *code, const char *frame_attribute)
{
    PyObject *module = NULL;
    PyObject *qualname = NULL;
    PyObject *name = NULL;
#if PY_VERSION_HEX >= 0x030B0000
    qualname = PyObject_GetAttrString(code, "co_qualname");
#else
    qualname = PyObject_GetAttrString(coroutine, "__qualname__");
#endif
    if (qualname == NULL || !PyUnicode_Check(qualname)) {
        goto done;
    }
    PyObject *frame = PyObject_GetAttrString(coroutine, frame_attribute);
    if (frame != NULL) {
        PyObject *globals = PyObject_GetAttrString(frame, "f_globals"); /* fails on None: a coroutine at its end */
        if (globals != NULL && PyDict_Check(globals)) {
            module = Py_XNewRef(PyDict_GetItemString(globals, "__name__"));
        }
        Py_XDECREF(globals);
        Py_DECREF(frame);
    }
    PyErr_Clear();
    name = qualified_name(module, qualname);
done:
    Py_XDECREF(module);
    Py_XDECREF(qualname);
    return name;
}

static Row *
row_new(TaskProbe *probe, PyObject *key, PyObject *name)
{
    Row *row = PyMem_Calloc(1, sizeof(Row));
    if (row == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    row->failed = PyDict_New();
    if (row->failed == NULL) {
        PyMem_Free(row);
        return NULL;
    }
    row->probe = probe;
    row->key = Py_XNewRef(key);
    row->name = Py_NewRef(name);
    probe->rows[probe->row_count++] = row;
    return row;
}

static Histogram *
row_histogram(Row *row, int which)
{
    switch (which) {
    case 0:
        return &row->start_delays;
    case 1:
        return &row->step_durations;
    default:
        return &row->durations[which - 2];
    }
}

#define ROW_HISTOGRAMS 5

static void
row_free(Row *row)
{
    for (int i = 0; i < ROW_HISTOGRAMS; i++) {
        histogram_free(row_histogram(row, i));
    }
    Py_XDECREF(row->key);
    Py_XDECREF(row->name);
    Py_XDECREF(row->span_name);
    Py_XDECREF(row->failed);
    PyMem_Free(row);
}

/* Every number of a row back to zero; the row itself stays, steps under way point at it. */
static void
row_reset(Row *row)
{
    row->created = row->finished = row->cancelled = row->destroyed = row->failures = row->steps = 0;
    row->busy_ns = 0;
    PyDict_Clear(row->failed);
    for (int i = 0; i < ROW_HISTOGRAMS; i++) {
        histogram_reset(row_histogram(row, i));
    }
}

/* The row of a key, if it has one: no Python code runs. */
static inline Row *
row_find(TaskProbe *probe, PyObject *key)
{
    size_t place = pointer_hash(key) & probe->slot_mask;
    Row *row;
    while ((row = probe->slots[place]) != NULL) {
        if (row->key == key) {
            return row;
        }
        place = (place + 1) & probe->slot_mask;
    }
    return NULL;
}

/* The row of a coroutine or of anything like one; the row of all others when the table is full or names fail. Borrows. */
static Row *
row_at_depth(TaskProbe *probe, PyObject *coroutine, int depth)
{
    static const char *const attributes[][2] = {{"cr_code", "cr_frame"}, {"gi_code", "gi_frame"}};
    PyObject *key = NULL;
    PyObject *name = NULL;
    int kind = 0;
    if (PyCoro_CheckExact(coroutine)) {
#if PY_VERSION_HEX < 0x030C0000
        key = Py_NewRef((PyObject *)((PyCoroObject *)coroutine)->cr_code); /* a public field until 3.11 */
#elif PY_VERSION_HEX < 0x030E0000 && !defined(Py_DEBUG)
        /* A coroutine begins as a generator does (Include/internal/pycore_genobject.h); only debug builds ask which it is. */
        key = (PyObject *)PyGen_GetCode((PyGenObject *)coroutine);
#else
        key = PyObject_GetAttr(coroutine, probe_name_cr_code(probe));
#endif
    }
    else {
        for (kind = 0; kind < 2 && key == NULL; kind++) {
            key = PyObject_GetAttrString(coroutine, attributes[kind][0]);
            if (key == NULL || !PyCode_Check(key)) {
                PyErr_Clear();
                Py_CLEAR(key);
                continue;
            }
            break;
        }
        if (key == NULL) {
            key = Py_NewRef((PyObject *)Py_TYPE(coroutine));
        }
    }
    if (key == NULL) {
        PyErr_Clear();
        return probe->rows[0];
    }
    if (key == probe->carrier && depth == 0) {
        PyObject *named = PyObject_CallOneArg(probe->carried, coroutine);
        Row *row = named != NULL ? row_at_depth(probe, named, 1) : NULL;
        Py_XDECREF(named);
        PyErr_Clear();
        if (row != NULL) {
            Py_DECREF(key);
            return row;
        }
    }
    Row *row = row_find(probe, key);
    if (row == NULL && probe->row_count <= probe->max_rows) {
        name = PyCode_Check(key) ? coroutine_name(coroutine, key, attributes[kind][1])
                                 : type_name((PyTypeObject *)key);
        /* Naming may have run a collection, and that more tasks. */
        row = row_find(probe, key);
        if (row == NULL && name != NULL && probe->row_count <= probe->max_rows) {
            row = row_new(probe, key, name);
            if (row != NULL) {
                size_t place = pointer_hash(key) & probe->slot_mask;
                while (probe->slots[place] != NULL) {
                    place = (place + 1) & probe->slot_mask;
                }
                probe->slots[place] = row;
            }
        }
        Py_XDECREF(name);
        PyErr_Clear();
    }
    Py_DECREF(key);
    return row != NULL ? row : probe->rows[0];
}

static inline Row *
row_of(TaskProbe *probe, PyObject *coroutine)
{
    return row_at_depth(probe, coroutine, 0);
}

/* Count a failure by its type's name, bounded over the whole probe. */
static void
row_count_failure(Row *row, PyTypeObject *type)
{
    TaskProbe *probe = row->probe;
    PyObject *name = type_name(type);
    PyObject *count = NULL;
    row->failures++;
    if (name == NULL) {
        goto lost;
    }
    int known = PySet_Contains(probe->error_names, name);
    if (known == 0) {
        if (PySet_GET_SIZE(probe->error_names) >= probe->max_error_types) {
            Py_SETREF(name, PyUnicode_FromString("_other"));
            if (name == NULL) {
                goto lost;
            }
        }
        else {
            known = PySet_Add(probe->error_names, name);
        }
    }
    if (known < 0) {
        goto lost;
    }
    PyObject *before = PyDict_GetItemWithError(row->failed, name);
    unsigned long long already = before != NULL ? PyLong_AsUnsignedLongLong(before) : 0;
    count = PyLong_FromUnsignedLongLong(already + 1);
    if (count == NULL || PyDict_SetItem(row->failed, name, count) < 0) {
        goto lost;
    }
    Py_DECREF(count);
    Py_DECREF(name);
    return;
lost:
    Py_XDECREF(count);
    Py_XDECREF(name);
    PyErr_Clear();
    probe->lost++;
}

#endif
