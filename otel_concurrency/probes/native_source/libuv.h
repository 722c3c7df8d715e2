/* Loops that libuv runs (uvloop): two handles of ours on the loop, one called before it waits for events, one after.

   Between the two, libuv waits, and calls what reads sockets: how much of it was waiting, its own idle metric tells. The
   callbacks run in the loop's thread without the GIL, and touch no Python object. A signal that interrupts a wait makes libuv
   forget what was idle until then, so it is only asked where callbacks have run. The functions are looked up in the library
   that uvloop has loaded; handles are sized by libuv itself, so that only the first field of one (`data`) is known to us.
   Handles are closed at the end of a run; libuv frees them in its next, or when the loop is closed. */

#ifndef OTEL_CONCURRENCY_LIBUV_H
#define OTEL_CONCURRENCY_LIBUV_H

#define WAY_LIBUV "libuv"
#define WAY_UNSEEN "unseen"

#ifdef _WIN32

static void
libuv_leave(LoopTimer *Py_UNUSED(timer))
{
}

static int64_t
libuv_idle_ns(const struct LibuvRun *Py_UNUSED(run), int64_t waiting_ns)
{
    return waiting_ns;
}

static int
libuv_is_waiting(const struct LibuvRun *Py_UNUSED(run))
{
    return 1;
}

static int64_t
libuv_now_ns(void)
{
    return system_monotonic_ns();
}

static PyObject *
timer_begin_libuv(LoopTimer *Py_UNUSED(timer), PyObject *Py_UNUSED(args))
{
    return PyUnicode_FromString(WAY_UNSEEN);
}

#else
#include <dlfcn.h>
#include <stdlib.h>

/* Of libuv's stable interface, uv.h; the same numbers in all of its versions 1.x. */
#define UV_CHECK 2
#define UV_PREPARE 9
#define UV_METRICS_IDLE_TIME 1
#define UV_METRICS_EVENTS 1 /* place of `events` in uv_metrics_t */
#define UV_METRICS_ROOM 64  /* uv_metrics_t has 16 numbers */

/* So long after a wait, and with so few events, it is asked whether a signal interrupted the wait. */
#define DOUBTFUL_NS 20000000
#define DOUBTFUL_EVENTS 2

typedef void (*LibuvCallback)(void *handle);

typedef struct {
    unsigned int (*version)(void);
    size_t (*handle_size)(int type);
    int (*prepare_init)(void *loop, void *handle);
    int (*prepare_start)(void *handle, LibuvCallback callback);
    int (*check_init)(void *loop, void *handle);
    int (*check_start)(void *handle, LibuvCallback callback);
    void (*unref)(void *handle);
    void (*close)(void *handle, LibuvCallback callback);
    int (*backend_timeout)(const void *loop);
    int (*loop_configure)(void *loop, int option, ...);
    uint64_t (*metrics_idle_time)(void *loop);
    int (*metrics_info)(void *loop, uint64_t *metrics);
    uint64_t (*now)(const void *loop);
} Libuv;

typedef struct LibuvRun {
    Libuv libuv;
    void *loop;
    LoopTime *time;
    const BucketTable *buckets; /* of the module, which the timer keeps */
    void *prepare;
    void *check;
    int open_handles;
    int is_poll;
    uint64_t idle_ns; /* libuv's total when the present wait began */
    uint64_t events;
} LibuvRun;

static int64_t
libuv_now_ns(void)
{
    return system_monotonic_ns(); /* uv_hrtime() */
}

static int
libuv_find(Libuv *libuv, const char *path)
{
    void *library = dlopen(path, RTLD_LAZY | RTLD_NOLOAD);
    if (library == NULL) {
        return 0;
    }
    struct {
        void *place;
        const char *name;
    } functions[] = {
        {&libuv->version, "uv_version"},
        {&libuv->handle_size, "uv_handle_size"},
        {&libuv->prepare_init, "uv_prepare_init"},
        {&libuv->prepare_start, "uv_prepare_start"},
        {&libuv->check_init, "uv_check_init"},
        {&libuv->check_start, "uv_check_start"},
        {&libuv->unref, "uv_unref"},
        {&libuv->close, "uv_close"},
        {&libuv->backend_timeout, "uv_backend_timeout"},
        {&libuv->loop_configure, "uv_loop_configure"},
        {&libuv->metrics_idle_time, "uv_metrics_idle_time"},
        {&libuv->metrics_info, "uv_metrics_info"},
        {&libuv->now, "uv_now"},
    };
    int found = 1;
    for (size_t i = 0; found && i < Py_ARRAY_LENGTH(functions); i++) {
        void *function = dlsym(library, functions[i].name);
        found = function != NULL;
        memcpy(functions[i].place, &function, sizeof(function));
    }
    dlclose(library); /* uvloop keeps it */
    return found && libuv->version() >> 16 == 1;
}

static LibuvRun *
run_of_handle(void *handle)
{
    LibuvRun *run;
    memcpy(&run, handle, sizeof(run)); /* `data` */
    return run;
}

static uint64_t
libuv_events(const LibuvRun *run)
{
    uint64_t metrics[UV_METRICS_ROOM] = {0};
    run->libuv.metrics_info(run->loop, metrics);
    return metrics[UV_METRICS_EVENTS];
}

/* How much of a wait that has lasted for so long was idle, as libuv has it. */
static int64_t
idle_part_ns(const LibuvRun *run, uint64_t idle_total_ns, int64_t waiting_ns)
{
    int64_t idle_ns = (int64_t)(idle_total_ns - run->idle_ns);
    return idle_ns < 0 ? 0 : idle_ns < waiting_ns ? idle_ns : waiting_ns;
}

/* Whether its idle time grows at this moment; for any thread that holds the GIL. */
static int
libuv_is_waiting(const LibuvRun *run)
{
    uint64_t before_ns = run->libuv.metrics_idle_time(run->loop);
    return run->libuv.metrics_idle_time(run->loop) > before_ns;
}

/* How much of the present wait was idle; for any thread that holds the GIL: the run cannot end meanwhile. */
static int64_t
libuv_idle_ns(const LibuvRun *run, int64_t waiting_ns)
{
    return libuv_is_waiting(run) ? waiting_ns
                                 : idle_part_ns(run, run->libuv.metrics_idle_time(run->loop), waiting_ns);
}

/* How much of a wait that is over was idle. Without events no callback has run, so it is all or nothing: nothing of what only
   looked. (The first waits of a loop may be interrupted, by the kernel's own work on the ring of the loop before.) Where libuv tells of very little idle time,
   its own time says when it last came back from the kernel: just now, if a signal was what it came back for at first. */
static int64_t
idle_until_ns(const LibuvRun *run, uint64_t idle_total_ns, uint64_t events, int64_t now_ns, int64_t waited_ns)
{
    int64_t idle_ns = idle_part_ns(run, idle_total_ns, waited_ns);
    if (events == 0) {
        return run->is_poll && idle_ns == 0 ? 0 : waited_ns;
    }
    int64_t after_ns = waited_ns - idle_ns;
    if (after_ns > DOUBTFUL_NS && events <= DOUBTFUL_EVENTS) {
        int64_t since_kernel_ns = now_ns - (int64_t)run->libuv.now(run->loop) * 1000000;
        if (since_kernel_ns >= 0 && since_kernel_ns < after_ns / 10) {
            return waited_ns - since_kernel_ns;
        }
    }
    return idle_ns;
}

static void
libuv_before_wait(void *handle)
{
    LibuvRun *run = run_of_handle(handle);
    run->is_poll = run->libuv.backend_timeout(run->loop) == 0;
    sequence_odd(run->time);
    loop_begin_wait(run->time, run->buckets, libuv_now_ns(), WAITING_FOR_EVENTS);
    sequence_even(run->time);
}

static void
libuv_after_wait(void *handle)
{
    LibuvRun *run = run_of_handle(handle);
    LoopTime *time = run->time;
    uint64_t total_events = libuv_events(run);
    uint64_t events = total_events - run->events;
    uint64_t idle_total_ns = run->libuv.metrics_idle_time(run->loop);
    int64_t now_ns = libuv_now_ns();
    int64_t waited_ns = now_ns - time->since_ns;
    int64_t idle_ns = idle_until_ns(run, idle_total_ns, events, now_ns, waited_ns);
    sequence_odd(time);
    if (time->phase == WAITING_FOR_EVENTS) {
        /* What was idle did wait: the timeout is told as 0 while new files wait to be watched. */
        int is_poll = run->is_poll && idle_ns == 0;
        loop_end_wait(time, now_ns, idle_ns, waited_ns - idle_ns, is_poll, events);
    }
    run->idle_ns = idle_total_ns;
    run->events = total_events;
    sequence_even(time);
}

static void
libuv_closed(void *handle)
{
    LibuvRun *run = run_of_handle(handle);
    if (--run->open_handles == 0) {
        free(run->prepare);
        free(run->check);
        free(run);
    }
}

/* Take our handles off the loop; only in the thread that put them there. */
static void
libuv_leave(LoopTimer *timer)
{
    LibuvRun *run = timer->libuv;
    if (run == NULL || timer->thread != PyThread_get_thread_ident()) {
        return;
    }
    timer->libuv = NULL;
    run->libuv.close(run->prepare, libuv_closed);
    run->libuv.close(run->check, libuv_closed);
}

static PyObject *
timer_begin_libuv(LoopTimer *timer, PyObject *args)
{
    PyObject *capsule;
    const char *path;
    if (!PyArg_ParseTuple(args, "Os", &capsule, &path)) {
        return NULL;
    }
    void *loop = PyCapsule_GetPointer(capsule, NULL);
    if (loop == NULL) {
        return NULL;
    }
    if (timer->time->phase != STOPPED || timer->libuv != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "this loop is timed already");
        return NULL;
    }
    Libuv libuv;
    if (!libuv_find(&libuv, path) || libuv.loop_configure(loop, UV_METRICS_IDLE_TIME) != 0) {
        return PyUnicode_FromString(WAY_UNSEEN);
    }
    LibuvRun *run = calloc(1, sizeof(LibuvRun));
    void *prepare = calloc(1, libuv.handle_size(UV_PREPARE));
    void *check = calloc(1, libuv.handle_size(UV_CHECK));
    if (run == NULL || prepare == NULL || check == NULL) {
        free(run);
        free(prepare);
        free(check);
        return PyErr_NoMemory();
    }
    *run = (LibuvRun){.libuv = libuv, .loop = loop, .time = timer->time, .buckets = &timer->state->buckets,
                      .prepare = prepare, .check = check, .open_handles = 2};
    libuv.prepare_init(loop, prepare); /* neither can fail, says uv.h */
    libuv.check_init(loop, check);
    memcpy(prepare, &run, sizeof(run));
    memcpy(check, &run, sizeof(run));
    run->idle_ns = libuv.metrics_idle_time(loop);
    run->events = libuv_events(run);
    libuv.prepare_start(prepare, libuv_before_wait);
    libuv.check_start(check, libuv_after_wait);
    libuv.unref(prepare); /* they keep no loop going */
    libuv.unref(check);
    timer->libuv = run;
    timer_start(timer, ITERATING);
    return PyUnicode_FromString(WAY_LIBUV);
}
#endif

PyDoc_STRVAR(timer_begin_libuv_doc,
"begin_libuv(loop, library, /)\n--\n\n"
"A run begins in this thread, of the libuv loop that the capsule points at; return how it is seen.");

static PyMethodDef timer_methods[] = {
    {"begin_select", (PyCFunction)timer_begin_select, METH_O, timer_begin_select_doc},
    {"begin_epoll", (PyCFunction)timer_begin_epoll, METH_O, timer_begin_epoll_doc},
    {"begin_libuv", (PyCFunction)timer_begin_libuv, METH_VARARGS, timer_begin_libuv_doc},
    {"end", (PyCFunction)timer_end, METH_NOARGS, timer_end_doc},
    {"read", (PyCFunction)timer_read, METH_NOARGS, timer_read_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot timer_slots[] = {
    {Py_tp_new, timer_new},           {Py_tp_dealloc, timer_dealloc}, {Py_tp_traverse, timer_traverse},
    {Py_tp_clear, timer_clear},       {Py_tp_methods, timer_methods}, {0, NULL},
};

static PyType_Spec timer_spec = {
    .name = "otel_concurrency.probes._native.LoopTimer",
    .basicsize = sizeof(LoopTimer),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = timer_slots,
};

#endif
