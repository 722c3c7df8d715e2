/* What an event loop does with its time: the numbers, and a `select` that takes them.

   The pure twin is probes/pure_loop_time.py. An iteration is what a loop does between two waits for events. With a selector
   everything is guarded by the GIL. libuv's callbacks (native_source/libuv.h) write without it: they keep a sequence number
   odd while they write, and a reader that saw it change reads again. */

#ifndef OTEL_CONCURRENCY_LOOP_TIME_H
#define OTEL_CONCURRENCY_LOOP_TIME_H

#if defined(__GNUC__) || defined(__clang__)
#define FENCE(order) __atomic_thread_fence(order)
#else /* no libuv there: the GIL guards all */
#define FENCE(order) ((void)0)
#endif

#define DELAY_SPREAD_NS 500000 /* the constants of probes/loop_delay.py */
#define DELAY_SLICES 16
#define DELAY_EVERY_NS 1e6
#define READ_TRIES 1000 /* then the numbers may be those of two moments, some 50 ns apart */

#define NOTED 64

typedef enum { STOPPED, STARTING, ITERATING, WAITING_FOR_EVENTS, POLLING_FOR_EVENTS } LoopPhase;
typedef enum { BLOCKING, POLLING, EMPTY, ITERATION_KINDS } IterationKind;

typedef struct {
    volatile unsigned int sequence; /* one writer */
    LoopPhase phase;
    int64_t since_ns; /* when the phase began */
    int64_t carry_ns; /* what the present iteration took before that */
    int64_t active_ns;
    int64_t idle_ns;
    uint64_t iterations[ITERATION_KINDS];
    uint64_t events;
    unsigned int noted; /* iterations that are not in what follows yet, in `took_ns` */
    int64_t took_ns[NOTED]; /* ~: a blocking wait came next */
    int64_t longest_ns;
    Histogram durations;
    int64_t pending_ns; /* the last iteration, whose delays depend on the next one; 0: none */
    double delay_sum;   /* ns * ns */
    Histogram delays;   /* its buckets hold times, not counts: see probes/loop_delay.py */
} LoopTime;

struct LibuvRun;

typedef struct LoopTimer {
    PyObject_HEAD
    struct ModuleState *state;
    PyObject *module; /* keeps `state` alive */
    LoopTime *time;
    struct LibuvRun *libuv; /* the run under way, on libuv */
    struct TimedWait *wait; /* the run under way, with a selector */
    unsigned long thread;
} LoopTimer;

/* What waits for events, in the place of the original. */
typedef struct TimedWait {
    PyObject_HEAD
    PyObject *original;
    LoopTimer *timer; /* NULL: silent */
} TimedWait;

typedef struct TimedSelect {
    TimedWait wait;
    vectorcallfunc call;
} TimedSelect;

static void libuv_leave(LoopTimer *timer);
static int64_t libuv_idle_ns(const struct LibuvRun *run, int64_t waiting_ns);
static int libuv_is_waiting(const struct LibuvRun *run);
static int64_t libuv_now_ns(void);

/* --- writing --- */

static inline void
sequence_odd(LoopTime *time)
{
    time->sequence++;
    FENCE(__ATOMIC_RELEASE);
}

static inline void
sequence_even(LoopTime *time)
{
    FENCE(__ATOMIC_RELEASE);
    time->sequence++;
}

/* What callbacks would have waited that became due in an iteration, at any time in it: from the whole of it, at its
   beginning, to what the next one takes, at its end; see probes/loop_delay.py. */
static void
loop_add_delays(LoopTime *time, const BucketTable *buckets, int64_t took_ns, int64_t next_ns)
{
    Histogram *delays = &time->delays;
    int64_t longest_ns = took_ns > next_ns ? took_ns : next_ns;
    if (took_ns <= 0) {
        return;
    }
    time->delay_sum += (double)took_ns * 0.5 * ((double)took_ns + (double)next_ns);
    if (longest_ns > delays->max_ns) {
        delays->max_ns = longest_ns;
    }
    if (longest_ns < DELAY_SPREAD_NS) {
        delays->buckets[bucket_position(buckets, (took_ns + next_ns + 1) / 2)] += (uint64_t)took_ns;
        return;
    }
    for (int i = 1; i < 2 * DELAY_SLICES; i += 2) {
        int64_t delay_ns = took_ns + (int64_t)((double)(next_ns - took_ns) * i / (2 * DELAY_SLICES));
        delays->buckets[bucket_position(buckets, delay_ns)] += (uint64_t)took_ns / DELAY_SLICES;
    }
}

static inline void
loop_settle_delays(LoopTime *time, const BucketTable *buckets, int64_t next_ns)
{
    if (time->pending_ns != 0) {
        loop_add_delays(time, buckets, time->pending_ns, next_ns);
        time->pending_ns = 0;
    }
}

/* Sort in the iterations that were noted. Many at once cost less: what the kernel did in between has put the buckets out of
   the processor's reach. */
static NEVER_INLINE void
loop_sort_in(LoopTime *time, const BucketTable *buckets)
{
    for (unsigned int i = 0; i < time->noted; i++) {
        int blocked = time->took_ns[i] < 0;
        int64_t took_ns = blocked ? ~time->took_ns[i] : time->took_ns[i];
        if (took_ns > time->longest_ns) {
            time->longest_ns = took_ns;
        }
        histogram_observe(&time->durations, buckets, took_ns);
        loop_settle_delays(time, buckets, took_ns);
        time->pending_ns = took_ns;
        if (blocked) { /* nothing was due: what had become so by then would have been the first */
            loop_settle_delays(time, buckets, 0);
        }
    }
    time->noted = 0;
}

/* The loop comes to wait for events, or to its end. */
static inline void
loop_end_iteration(LoopTime *time, const BucketTable *buckets, int64_t now_ns)
{
    int64_t took_ns = now_ns - time->since_ns;
    time->active_ns += took_ns;
    if (time->phase != ITERATING) {
        return; /* the time before the first wait is no iteration */
    }
    if (time->noted == NOTED) { /* not sooner: the last one stays, for `loop_end_wait` */
        loop_sort_in(time, buckets);
    }
    took_ns += time->carry_ns;
    time->took_ns[time->noted++] = took_ns > 0 ? took_ns : 0;
}

static inline void
loop_begin_wait(LoopTime *time, const BucketTable *buckets, int64_t now_ns, LoopPhase phase)
{
    loop_end_iteration(time, buckets, now_ns);
    time->phase = phase;
    time->since_ns = now_ns;
    time->carry_ns = 0;
}

/* The wait is over. `idle_ns` of it were idle; `carry_ns` belong to the iteration that begins with it. */
static inline void
loop_end_wait(LoopTime *time, int64_t now_ns, int64_t idle_ns, int64_t carry_ns, int is_poll, uint64_t events)
{
    IterationKind kind = !is_poll ? BLOCKING : events != 0 ? POLLING : EMPTY;
    if (!is_poll && time->noted != 0 && time->took_ns[time->noted - 1] >= 0) {
        time->took_ns[time->noted - 1] = ~time->took_ns[time->noted - 1];
    }
    time->idle_ns += idle_ns;
    time->active_ns += now_ns - time->since_ns - idle_ns;
    time->iterations[kind]++;
    time->events += events;
    time->phase = ITERATING;
    time->since_ns = now_ns;
    time->carry_ns = carry_ns;
}

/* --- TimedWait --- */

static int
is_zero_timeout(PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 1) {
        return 0;
    }
    if (PyFloat_CheckExact(arguments[0])) {
        return PyFloat_AS_DOUBLE(arguments[0]) <= 0;
    }
    if (PyLong_CheckExact(arguments[0])) {
        int overflow = 0;
        return PyLong_AsLongAndOverflow(arguments[0], &overflow) <= 0 && overflow <= 0;
    }
    return 0; /* None: for ever */
}

/* Calls the original. */
typedef PyObject *(*AskOriginal)(TimedWait *wait, PyObject *const *arguments, size_t count, PyObject *keywords);

static ALWAYS_INLINE PyObject *
timed_call(TimedWait *wait, AskOriginal ask, PyObject *const *arguments, size_t count, PyObject *keywords, int is_poll)
{
    LoopTimer *timer = wait->timer;
    if (timer == NULL) {
        return ask(wait, arguments, count, keywords);
    }
    Py_INCREF(wait); /* it may be taken from its place meanwhile */
    const Clock *clock = &timer->state->clock;
    loop_begin_wait(timer->time, &timer->state->buckets, monotonic_ns(clock),
                    is_poll ? POLLING_FOR_EVENTS : WAITING_FOR_EVENTS);
    PyObject *events = ask(wait, arguments, count, keywords);
    if (wait->timer != NULL) {
        LoopTime *time = timer->time;
        uint64_t found = events != NULL && PyList_CheckExact(events) ? (uint64_t)PyList_GET_SIZE(events) : 0;
        int64_t now_ns = monotonic_ns(clock);
        loop_end_wait(time, now_ns, is_poll ? 0 : now_ns - time->since_ns, 0, is_poll, found);
    }
    Py_DECREF(wait);
    return events;
}

static inline PyObject *
ask_select(TimedWait *wait, PyObject *const *arguments, size_t count, PyObject *keywords)
{
    return PyObject_Vectorcall(wait->original, arguments, count, keywords);
}

static PyObject *
timed_select_call(PyObject *select, PyObject *const *arguments, size_t count, PyObject *keywords)
{
    return timed_call((TimedWait *)select, ask_select, arguments, count, keywords,
                      is_zero_timeout(arguments, PyVectorcall_NARGS(count)));
}

/* As the original in all that one can ask of it. */
static PyObject *
timed_select_getattro(TimedWait *wait, PyObject *name)
{
    return PyUnicode_Check(name) && PyUnicode_CompareWithASCIIString(name, "__wrapped__") == 0
               ? Py_NewRef(wait->original)
               : PyObject_GetAttr(wait->original, name);
}

static PyObject *
timed_wait_repr(TimedWait *wait)
{
    return PyObject_Repr(wait->original);
}

static int
timed_wait_traverse(TimedWait *wait, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(wait));
    Py_VISIT(wait->original);
    Py_VISIT(wait->timer);
    return 0;
}

static int
timed_wait_clear(TimedWait *wait)
{
    Py_CLEAR(wait->timer); /* the original stays: someone may still call us */
    return 0;
}

static void
timed_wait_dealloc(TimedWait *wait)
{
    PyTypeObject *type = Py_TYPE(wait);
    PyObject_GC_UnTrack(wait);
    Py_XDECREF(wait->timer);
    Py_XDECREF(wait->original);
    PyObject_GC_Del(wait);
    Py_DECREF(type);
}

static PyMemberDef timed_select_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(TimedSelect, call), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot timed_select_slots[] = {
    {Py_tp_dealloc, timed_wait_dealloc}, {Py_tp_traverse, timed_wait_traverse},
    {Py_tp_clear, timed_wait_clear},     {Py_tp_call, PyVectorcall_Call},
    {Py_tp_getattro, timed_select_getattro}, {Py_tp_repr, timed_wait_repr},
    {Py_tp_members, timed_select_members}, {0, NULL},
};

static PyType_Spec timed_select_spec = {
    .name = "otel_concurrency.probes._native.TimedSelect",
    .basicsize = sizeof(TimedSelect),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL
#ifdef Py_TPFLAGS_DISALLOW_INSTANTIATION
             | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE
#endif
    ,
    .slots = timed_select_slots,
};

/* --- LoopTimer --- */

/* Its clock: with a selector the probes' own, on libuv the one that libuv's idle time is told in. */
static int64_t
timer_now_ns(const LoopTimer *timer)
{
    return timer->libuv != NULL ? libuv_now_ns() : monotonic_ns(&timer->state->clock);
}

/* A run begins. libuv runs what is ready before it first looks for events, asyncio after. */
static void
timer_start(LoopTimer *timer, LoopPhase phase)
{
    timer->thread = PyThread_get_thread_ident();
    timer->time->phase = phase;
    timer->time->since_ns = timer_now_ns(timer);
}

/* `type` is of a kind of TimedWait. */
static TimedWait *
timer_begin_wait(LoopTimer *timer, PyTypeObject *type, PyObject *original)
{
    if (timer->time->phase != STOPPED || type == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "this loop is timed already");
        return NULL;
    }
    TimedWait *wait = PyObject_GC_New(TimedWait, type);
    if (wait == NULL) {
        return NULL;
    }
    wait->original = Py_NewRef(original);
    wait->timer = (LoopTimer *)Py_NewRef((PyObject *)timer);
    timer->wait = (TimedWait *)Py_NewRef((PyObject *)wait);
    timer_start(timer, STARTING);
    return wait;
}

PyDoc_STRVAR(timer_begin_select_doc,
"begin_select(original, /)\n--\n\n"
"A run begins in this thread: return the `select` to call in the place of the original.");

static PyObject *
timer_begin_select(LoopTimer *timer, PyObject *original)
{
    TimedSelect *select = (TimedSelect *)timer_begin_wait(timer, timer->state->timed_select_type, original);
    if (select == NULL) {
        return NULL;
    }
    select->call = timed_select_call;
    PyObject_GC_Track(select);
    return (PyObject *)select;
}

PyDoc_STRVAR(timer_end_doc,
"end()\n--\n\n"
"The run is over; what it counted stays.");

static PyObject *
timer_end(LoopTimer *timer, PyObject *Py_UNUSED(ignored))
{
    LoopTime *time = timer->time;
    int64_t now_ns = timer_now_ns(timer);
    libuv_leave(timer); /* first: from here on nobody writes but us */
    if (time->phase != STOPPED) {
        int waits = time->phase == WAITING_FOR_EVENTS; /* ended from another thread, or by an exception */
        if (waits) {
            loop_end_wait(time, now_ns, now_ns - time->since_ns, 0, 0, 0);
        }
        else {
            loop_end_iteration(time, &timer->state->buckets, now_ns);
        }
        loop_sort_in(time, &timer->state->buckets);
        loop_settle_delays(time, &timer->state->buckets, 0);
        time->phase = STOPPED;
    }
    TimedWait *wait = timer->wait;
    timer->wait = NULL;
    if (wait != NULL) {
        Py_CLEAR(wait->timer); /* `timer` is the caller's: it stays */
        Py_DECREF(wait);
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(timer_read_doc,
"read()\n--\n\n"
"Return the arguments of a `TimerReading`; what is under way counts up to now.");

static PyObject *
timer_read(LoopTimer *timer, PyObject *Py_UNUSED(ignored))
{
    LoopTime read;
    uint64_t buckets[BUCKET_COUNT];
    uint64_t delays[BUCKET_COUNT];
    int64_t now_ns = 0;
    int64_t idle_ns = 0;
    clock_adjust(&timer->state->clock);
    for (int i = 0; i < READ_TRIES; i++) {
        unsigned int before = timer->time->sequence;
        FENCE(__ATOMIC_ACQUIRE);
        read = *timer->time;
        memcpy(buckets, read.durations.buckets, sizeof(buckets));
        memcpy(delays, read.delays.buckets, sizeof(delays));
        now_ns = timer_now_ns(timer);
        idle_ns = now_ns - read.since_ns;
        if (timer->libuv != NULL && read.phase == WAITING_FOR_EVENTS) {
            idle_ns = libuv_idle_ns(timer->libuv, idle_ns);
        }
        FENCE(__ATOMIC_ACQUIRE);
        if (before % 2 == 0 && timer->time->sequence == before) {
            break;
        }
    }
    read.durations.buckets = buckets;
    read.delays.buckets = delays;
    loop_sort_in(&read, &timer->state->buckets); /* the copy's: the writer's own wait until they are many */
    int64_t so_far_ns = now_ns - read.since_ns;
    int64_t present_ns = -1;
    if (read.phase == WAITING_FOR_EVENTS) {
        read.idle_ns += idle_ns;
        read.active_ns += so_far_ns - idle_ns;
        if (timer->libuv != NULL && !libuv_is_waiting(timer->libuv)) {
            present_ns = so_far_ns - idle_ns; /* it is in its callbacks already */
        }
    }
    else if (read.phase != STOPPED) {
        read.active_ns += so_far_ns;
        present_ns = read.phase == ITERATING ? so_far_ns + read.carry_ns : -1;
    }
    if (present_ns > read.longest_ns) {
        read.longest_ns = present_ns;
    }
    read.delays.sum_ns = (int64_t)(read.delay_sum / DELAY_EVERY_NS);
    PyObject *durations = histogram_read(&read.durations);
    PyObject *weights = durations != NULL ? histogram_read(&read.delays) : NULL;
    if (weights == NULL) {
        Py_XDECREF(durations);
        return NULL;
    }
    return Py_BuildValue("(LLKKKiKLLNN)", (long long)read.active_ns, (long long)read.idle_ns,
                         (unsigned long long)read.iterations[BLOCKING], (unsigned long long)read.iterations[POLLING],
                         (unsigned long long)read.iterations[EMPTY], 0,
                         (unsigned long long)read.events, (long long)read.longest_ns, (long long)present_ns,
                         durations, weights);
}

static PyObject *
timer_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    LoopTimer *timer = (LoopTimer *)type->tp_alloc(type, 0); /* all zero */
    if (timer == NULL) {
        return NULL;
    }
    timer->module = Py_XNewRef(PyType_GetModule(type));
    timer->state = timer->module != NULL ? PyModule_GetState(timer->module) : NULL;
    timer->time = PyMem_RawCalloc(1, sizeof(LoopTime));
    uint64_t *buckets = PyMem_RawCalloc(2 * BUCKET_COUNT, sizeof(uint64_t)); /* libuv's callbacks cannot ask for memory */
    if (timer->time != NULL && buckets != NULL) {
        timer->time->durations.buckets = buckets;
        timer->time->delays.buckets = buckets + BUCKET_COUNT;
    }
    if (timer->state == NULL || timer->time == NULL || buckets == NULL) {
        if (timer->time == NULL) {
            PyMem_RawFree(buckets);
        }
        Py_DECREF(timer);
        return PyErr_Occurred() ? NULL : PyErr_NoMemory();
    }
    return (PyObject *)timer;
}

static int
timer_traverse(LoopTimer *timer, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(timer));
    Py_VISIT(timer->module);
    Py_VISIT(timer->wait);
    return 0;
}

static int
timer_clear(LoopTimer *timer)
{
    Py_CLEAR(timer->wait);
    return 0;
}

static void
timer_dealloc(LoopTimer *timer)
{
    PyTypeObject *type = Py_TYPE(timer);
    PyObject_GC_UnTrack(timer);
    timer_clear(timer);
    if (timer->time != NULL && timer->libuv == NULL) { /* else libuv may still write there: it is left to it */
        PyMem_RawFree(timer->time->durations.buckets);
        PyMem_RawFree(timer->time);
    }
    Py_XDECREF(timer->module);
    type->tp_free((PyObject *)timer);
    Py_DECREF(type);
}

#endif
