/* Which coroutine runs on which thread, and since when: written by the thread itself, read by any other under the GIL. */

#ifndef OTEL_CONCURRENCY_THREADS_H
#define OTEL_CONCURRENCY_THREADS_H

#if defined(_MSC_VER)
#define THREAD_LOCAL __declspec(thread)
#elif defined(__GNUC__) && defined(__linux__)
/* One pointer of static TLS instead of a call to __tls_get_addr on every step. */
#define THREAD_LOCAL _Thread_local __attribute__((tls_model("initial-exec")))
#else
#define THREAD_LOCAL _Thread_local
#endif

#define SLOT_CAPSULE "otel_concurrency.probes._native.thread"

#ifdef WATCH_CONTEXTS
#define MAX_NESTED_STEPS 32

typedef struct {
    Step step;
    PyObject *entry; /* strong */
    int disowned; /* the step of another task with the same context, which counts for itself */
    State before;
    PyObject *outer_context; /* borrowed: entered further out, so alive; NULL for a thread without one */
} Frame;

/* A create_task under way: an eager task takes its first step inside it, before anyone knows its context. */
typedef struct Creation {
    struct Creation *outer;
    struct Account *told;  /* what the task will count for; borrowed */
    struct Account *owner; /* of a request that began in that first step; strong */
    int64_t slow_ns;       /* of its probe */
    int64_t nested_ns;     /* first steps of other eager tasks in it */
    PyObject *inner_task; /* what a create_task inside this one returned; only compared */
    PyObject *outer_context;
    int64_t began_ns; /* 0 until a context is entered */
    int64_t ended_ns;
} Creation;
#endif

typedef struct ThreadSlot {
    struct ModuleState *state;
    struct ThreadSlot *next;
    struct ThreadSlot **link;
    unsigned long ident;
    Step *innermost;
#ifdef WATCH_CONTEXTS
    PyObject *context; /* current one, borrowed, only compared */
    Creation *creation;
    int depth;
    Frame frames[MAX_NESTED_STEPS];
#endif
} ThreadSlot;

static THREAD_LOCAL ThreadSlot *this_thread; /* a cache of what the thread state's dict holds */

static void
thread_slot_free(PyObject *capsule)
{
    ThreadSlot *slot = PyCapsule_GetPointer(capsule, SLOT_CAPSULE);
    if (slot == NULL) {
        PyErr_Clear();
        return;
    }
    if (this_thread == slot) {
        this_thread = NULL;
    }
    if (slot->link != NULL) {
        *slot->link = slot->next;
    }
    if (slot->next != NULL) {
        slot->next->link = slot->link;
    }
    PyMem_Free(slot);
}

/* The module goes before its threads: their slots stay until they end, with nothing to point at. */
static void
threads_leave(ModuleState *state)
{
    while (state->threads != NULL) {
        ThreadSlot *slot = state->threads;
        state->threads = slot->next;
        slot->state = NULL;
        slot->next = NULL;
        slot->link = NULL;
    }
}

/* Find or make this thread's slot. It goes with the thread's state, so a thread that ends leaves nothing behind. */
static ThreadSlot *
thread_slot_slow(ModuleState *state)
{
    PyObject *kept = PyThreadState_GetDict(); /* borrowed */
    if (kept == NULL) {
        return NULL;
    }
    PyObject *capsule = PyDict_GetItemWithError(kept, state->slot_key);
    if (capsule != NULL) {
        ThreadSlot *slot = PyCapsule_GetPointer(capsule, SLOT_CAPSULE);
        if (slot != NULL) {
            return this_thread = slot;
        }
    }
    if (PyErr_Occurred()) {
        PyErr_Clear();
        return NULL;
    }
    ThreadSlot *slot = PyMem_Calloc(1, sizeof(ThreadSlot));
    if (slot == NULL) {
        return NULL;
    }
    slot->state = state;
    slot->ident = PyThread_get_thread_ident();
    slot->next = state->threads;
    slot->link = &state->threads;
    if (slot->next != NULL) {
        slot->next->link = &slot->next;
    }
    state->threads = slot;
    capsule = PyCapsule_New(slot, SLOT_CAPSULE, thread_slot_free);
    if (capsule == NULL) {
        PyErr_Clear();
        state->threads = slot->next;
        if (slot->next != NULL) {
            slot->next->link = &state->threads;
        }
        PyMem_Free(slot);
        return NULL;
    }
    int failed = PyDict_SetItem(kept, state->slot_key, capsule);
    Py_DECREF(capsule);
    if (failed) {
        PyErr_Clear();
        return NULL;
    }
    return this_thread = slot;
}

static inline ThreadSlot *
thread_slot(ModuleState *state)
{
    ThreadSlot *slot = this_thread;
    return slot != NULL && slot->state == state ? slot : thread_slot_slow(state);
}

/* [(thread ident, coroutine name, ns since its step began)], the innermost step of each thread that is inside one. */
static PyObject *
threads_running(ModuleState *state)
{
    PyObject *result = PyList_New(0);
    if (result == NULL) {
        return NULL;
    }
    int64_t now_ns = monotonic_ns(&state->clock);
    Py_ssize_t count = 0;
    for (ThreadSlot *slot = state->threads; slot != NULL; slot = slot->next) {
        count++;
    }
    /* Building objects may end a thread's state; so look first, build then. */
    struct {
        unsigned long ident;
        PyObject *name;
        int64_t since_ns;
    } *seen = PyMem_Calloc(count ? count : 1, sizeof(*seen));
    if (seen == NULL) {
        Py_DECREF(result);
        return PyErr_NoMemory();
    }
    count = 0;
    for (ThreadSlot *slot = state->threads; slot != NULL; slot = slot->next) {
        if (slot->innermost != NULL) {
            seen[count].ident = slot->ident;
            seen[count].name = Py_NewRef(slot->innermost->row->name);
            seen[count].since_ns = now_ns - slot->innermost->began_ns;
            count++;
        }
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        if (result != NULL) {
            PyObject *item = Py_BuildValue("(kOL)", seen[i].ident, seen[i].name, (long long)seen[i].since_ns);
            if (item == NULL || PyList_Append(result, item) < 0) {
                Py_CLEAR(result);
            }
            Py_XDECREF(item);
        }
        Py_DECREF(seen[i].name);
    }
    PyMem_Free(seen);
    return result;
}

#endif
