/* Waiting for a loop to stall, without the GIL: a thread that asked for it many times a second would cost the program more
   than it tells (see hooks/loops/watchdog.py, whose wait this is). And what a thread that stalls has current. */

#ifndef OTEL_CONCURRENCY_WATCH_H
#define OTEL_CONCURRENCY_WATCH_H

#ifdef __linux__
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>
#endif

#define OWN_SCHEDSTAT "/proc/thread-self/schedstat"
#define MAX_WATCHED (MAX_LOOPS + 1)

typedef struct Watch {
    PyObject_HEAD
    struct ModuleState *state;
    PyObject *module; /* keeps `state` alive */
    PyThread_type_lock bell; /* held, but for the moment after `ring` */
    int rung;
} Watch;

typedef struct {
    LoopTimer *timer;
#ifndef _WIN32
    clockid_t cpu_clock;
#endif
    int has_cpu_clock;
    long native_id;
    int64_t since_ns;    /* when the iteration began that was seen last, by the timer's clock; 0: none */
    int64_t wait_ns;     /* when the wait for events began that was seen last; 0: none */
    int64_t seen_ns;     /* how far it was when it was first seen */
    int64_t cpu_ns;      /* the thread's CPU time then */
    int64_t runqueue_ns; /* its time without a CPU then */
    int64_t kept_ns;     /* its CPU time while the one who watches waited for the GIL */
} Watched;

static int64_t
watched_cpu_ns(const Watched *watched)
{
#ifndef _WIN32
    struct timespec now;
    if (watched->has_cpu_clock && clock_gettime(watched->cpu_clock, &now) == 0) {
        return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
    }
#endif
    (void)watched;
    return -1;
}

/* Read a small file. Whoever holds the GIL keeps it, so that what the file tells of does not go on meanwhile. */
static Py_ssize_t
read_small_file(const char *path, char *room, size_t size)
{
    Py_ssize_t length = -1;
#ifdef __linux__
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file >= 0) {
        length = read(file, room, size);
        close(file);
    }
#else
    (void)path;
    (void)room;
    (void)size;
#endif
    return length;
}

/* The second number of a schedstat (Linux, Documentation/scheduler/sched-stats.rst); -1 where there is none. */
static int64_t
runqueue_ns_in(const char *path)
{
    char text[96];
    long long waited_ns = -1;
    Py_ssize_t length = read_small_file(path, text, sizeof(text) - 1);
    text[length > 0 ? length : 0] = '\0';
    return sscanf(text, "%*s %lld", &waited_ns) == 1 ? waited_ns : -1;
}

static int64_t
watched_runqueue_ns(const Watched *watched)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/self/task/%ld/schedstat", watched->native_id);
    return runqueue_ns_in(path);
}

/* For how long the present iteration has lasted; -1 between two. The thread that writes does not wait for us: what is read
   in the middle of a change is taken for an iteration that began long ago, so whoever gets to hear of one asks again. */
static int64_t
watched_look(Watched *watched)
{
    LoopTimer *timer = watched->timer;
    volatile LoopTime *time = timer->time;
    int64_t since_ns = time->since_ns;
    if (time->phase != ITERATING || time->since_ns != since_ns) {
        watched->since_ns = 0;
        watched->seen_ns = watched->cpu_ns = watched->runqueue_ns = -1;
        return -1;
    }
    int64_t now_ns = timer_now_ns(timer);
    if (since_ns != watched->since_ns) {
        watched->since_ns = since_ns;
        watched->seen_ns = now_ns - since_ns + time->carry_ns;
        watched->cpu_ns = watched_cpu_ns(watched);
        watched->runqueue_ns = watched_runqueue_ns(watched);
    }
    return now_ns - since_ns + time->carry_ns;
}

/* Whether it has waited for events, and for nothing else, since it was asked last: an idle loop. */
static int
watched_rests(Watched *watched)
{
    volatile LoopTime *time = watched->timer->time;
    int64_t wait_ns = time->since_ns;
    if (time->phase == ITERATING || time->since_ns != wait_ns) {
        wait_ns = 0;
    }
    int rests = wait_ns != 0 && wait_ns == watched->wait_ns;
    watched->wait_ns = wait_ns;
    return rests;
}

PyDoc_STRVAR(watch_wait_doc,
"wait(loops, timeout_ns, poll_ns, threshold_ns, /)\n--\n\n"
"Wait until an iteration has lasted for `threshold_ns`, the bell was rung, or the time is over.\n\n"
"Args:\n"
"    loops: (LoopTimer, id of its thread's CPU clock or None, native id of that thread) of each loop that runs.\n"
"    timeout_ns: The longest wait.\n"
"    poll_ns: How often to look, without the GIL; half as often while all of them wait, and at the very moment at which\n"
"        an iteration that is on would be a stall.\n"
"    threshold_ns: From when on an iteration is a stall.\n\n"
"Returns:\n"
"    (index of the loop or -1, whether the bell was rung, how long this thread at the end waited for the GIL without the\n"
"    time in which the kernel had no CPU for it, what was seen of each loop's last iteration: how long it had lasted\n"
"    when it was first seen, CPU time and run-queue time of its thread then, CPU time of its thread during the wait for\n"
"    the GIL, whether that iteration is still on), all in ns, -1 where nobody can tell.");

/* (seen_ns, cpu_ns, runqueue_ns, kept_ns, is_on) of each loop */
static PyObject *
watched_told(const Watched *watched, int count)
{
    PyObject *told = PyTuple_New(count);
    for (int i = 0; told != NULL && i < count; i++) {
        const Watched *each = &watched[i];
        volatile LoopTime *time = each->timer->time;
        int is_on = each->since_ns != 0 && time->phase == ITERATING && time->since_ns == each->since_ns;
        PyObject *one = Py_BuildValue("(LLLLN)", (long long)each->seen_ns, (long long)each->cpu_ns,
                                      (long long)each->runqueue_ns, (long long)each->kept_ns, PyBool_FromLong(is_on));
        if (one == NULL) {
            Py_CLEAR(told);
            break;
        }
        PyTuple_SET_ITEM(told, i, one);
    }
    return told;
}

static PyObject *
watch_wait(Watch *watch, PyObject *args)
{
    PyObject *loops;
    long long timeout_ns, poll_ns, threshold_ns;
    if (!PyArg_ParseTuple(args, "O!LLL", &PyTuple_Type, &loops, &timeout_ns, &poll_ns, &threshold_ns)) {
        return NULL;
    }
    Watched watched[MAX_WATCHED];
    int count = 0;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(loops) && count < MAX_WATCHED; i++) {
        PyObject *timer, *cpu_clock;
        long native_id;
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(loops, i), "O!Ol", watch->state->timer_type, &timer, &cpu_clock,
                              &native_id)) {
            return NULL;
        }
        Watched *each = &watched[count++];
        memset(each, 0, sizeof(*each));
        each->seen_ns = each->cpu_ns = each->runqueue_ns = each->kept_ns = -1;
        each->native_id = native_id;
        each->timer = (LoopTimer *)timer; /* the tuple keeps it */
#ifndef _WIN32
        if (cpu_clock != Py_None) {
            long id = PyLong_AsLong(cpu_clock);
            if (id == -1 && PyErr_Occurred()) {
                return NULL;
            }
            each->cpu_clock = (clockid_t)id;
            each->has_cpu_clock = 1;
        }
#endif
    }
    int found = -1;
    int rung = 0;
    int rest = 0;
    int64_t due_ns = INT64_MAX;
    int64_t ready_ns;
    int64_t delayed_ns;
    Py_INCREF(loops);
    Py_BEGIN_ALLOW_THREADS
    int64_t ends_ns = system_monotonic_ns() + timeout_ns;
    for (;;) {
        int64_t left_ns = ends_ns - system_monotonic_ns();
        if (left_ns <= 0 || found >= 0) {
            break; /* all loops were looked at after the last wait */
        }
        /* What begins after a rest is looked at before it is a stall, and from then on as often as ever. */
        int64_t look_ns = rest && 2 * poll_ns <= threshold_ns ? 2 * poll_ns : poll_ns;
        look_ns = due_ns < look_ns ? due_ns : look_ns;
        int64_t sleep_ns = count > 0 && look_ns < left_ns ? look_ns : left_ns;
        if (PyThread_acquire_lock_timed(watch->bell, sleep_ns / 1000 + 1, 0) == PY_LOCK_ACQUIRED) {
            rung = 1;
            break;
        }
        rest = 1;
        due_ns = INT64_MAX; /* until an iteration that is on will have lasted long enough */
        for (int i = 0; i < count; i++) {
            int64_t lasted_ns = watched_look(&watched[i]);
            if (lasted_ns >= threshold_ns && found < 0) {
                found = i;
            }
            if (lasted_ns >= 0 && threshold_ns - lasted_ns < due_ns) {
                due_ns = threshold_ns - lasted_ns;
            }
            rest &= watched_rests(&watched[i]);
        }
    }
    for (int i = 0; i < count; i++) {
        watched[i].kept_ns = watched_cpu_ns(&watched[i]);
    }
    delayed_ns = runqueue_ns_in(OWN_SCHEDSTAT);
    ready_ns = system_monotonic_ns();
    Py_END_ALLOW_THREADS
    int64_t gil_ns = system_monotonic_ns() - ready_ns;
    if (delayed_ns >= 0) { /* the kernel's part of the wait */
        gil_ns -= runqueue_ns_in(OWN_SCHEDSTAT) - delayed_ns;
    }
    gil_ns = gil_ns < 0 ? 0 : gil_ns;
    for (int i = 0; i < count; i++) {
        int64_t cpu_ns = watched_cpu_ns(&watched[i]);
        watched[i].kept_ns = cpu_ns >= 0 && watched[i].kept_ns >= 0 ? cpu_ns - watched[i].kept_ns : -1;
    }
    if (rung) {
        watch->rung = 0;
    }
    PyObject *told = watched_told(watched, count);
    Py_DECREF(loops);
    return told != NULL ? Py_BuildValue("(iNLN)", found, PyBool_FromLong(rung), (long long)gil_ns, told) : NULL;
}

PyDoc_STRVAR(watch_ring_doc,
"ring()\n--\n\n"
"End the wait under way, or the next one; from any thread.");

static PyObject *
watch_ring(Watch *watch, PyObject *Py_UNUSED(ignored))
{
    if (!watch->rung) {
        watch->rung = 1;
        PyThread_release_lock(watch->bell);
    }
    Py_RETURN_NONE;
}

static PyObject *
watch_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    Watch *watch = (Watch *)type->tp_alloc(type, 0); /* all zero */
    if (watch == NULL) {
        return NULL;
    }
    watch->module = Py_XNewRef(PyType_GetModule(type));
    watch->state = watch->module != NULL ? PyModule_GetState(watch->module) : NULL;
    watch->bell = watch->state != NULL ? PyThread_allocate_lock() : NULL;
    if (watch->bell == NULL) {
        Py_DECREF(watch);
        return PyErr_Occurred() ? NULL : PyErr_NoMemory();
    }
    PyThread_acquire_lock(watch->bell, NOWAIT_LOCK);
    return (PyObject *)watch;
}

static int
watch_traverse(Watch *watch, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(watch));
    Py_VISIT(watch->module);
    return 0;
}

static void
watch_dealloc(Watch *watch)
{
    PyTypeObject *type = Py_TYPE(watch);
    PyObject_GC_UnTrack(watch);
    if (watch->bell != NULL) {
        if (!watch->rung) {
            PyThread_release_lock(watch->bell);
        }
        PyThread_free_lock(watch->bell);
    }
    Py_XDECREF(watch->module);
    type->tp_free((PyObject *)watch);
    Py_DECREF(type);
}

static PyMethodDef watch_methods[] = {
    {"wait", (PyCFunction)watch_wait, METH_VARARGS, watch_wait_doc},
    {"ring", (PyCFunction)watch_ring, METH_NOARGS, watch_ring_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot watch_slots[] = {
    {Py_tp_new, watch_new},           {Py_tp_dealloc, watch_dealloc}, {Py_tp_traverse, watch_traverse},
    {Py_tp_methods, watch_methods}, {0, NULL},
};

static PyType_Spec watch_spec = {
    .name = "otel_concurrency.probes._native.Watch",
    .basicsize = sizeof(Watch),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = watch_slots,
};

PyDoc_STRVAR(read_held_doc,
"read_held(path, /)\n--\n\n"
"Return what a small file holds, None where it cannot be read. The GIL is kept, so nobody goes on meanwhile.");

static PyObject *
module_read_held(PyObject *Py_UNUSED(module), PyObject *argument)
{
    char text[1024];
    const char *path = PyUnicode_Check(argument) ? PyUnicode_AsUTF8(argument) : NULL;
    if (path == NULL) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_TypeError, "a path is a str");
        }
        return NULL;
    }
    Py_ssize_t length = read_small_file(path, text, sizeof(text));
    return length >= 0 ? PyBytes_FromStringAndSize(text, length) : Py_NewRef(Py_None);
}

PyDoc_STRVAR(context_of_thread_doc,
"context_of_thread(ident, /)\n--\n\n"
"Return the contextvars.Context that is current in a thread of this interpreter; None where there is none.");

static PyObject *
module_context_of_thread(PyObject *Py_UNUSED(module), PyObject *argument)
{
    unsigned long ident = PyLong_AsUnsignedLong(argument);
    if (ident == (unsigned long)-1 && PyErr_Occurred()) {
        return NULL;
    }
    /* Threads come and go with the GIL held, as it is here. */
    PyThreadState *thread = PyInterpreterState_ThreadHead(PyInterpreterState_Get());
    while (thread != NULL && thread->thread_id != ident) {
        thread = PyThreadState_Next(thread);
    }
    PyObject *context = thread != NULL ? thread->context : NULL;
    return Py_NewRef(context != NULL ? context : Py_None);
}

#endif
