/* CPython 3.14 and later: every step of every loop is a switch into its task's context and out again, and the
   interpreter tells of each switch (PyContext_AddWatcher). Nothing is wrapped; a map leads from a context to its task.

   An event names only the context that is current now, never whether it was entered or left, so each thread keeps the
   steps under way with the context outside each. A context cannot be entered twice at once: what is current again is
   what was left to. */

#ifndef OTEL_CONCURRENCY_WATCHER_H
#define OTEL_CONCURRENCY_WATCHER_H

/* A weak reference to the task that carries its numbers: the reference dies with the task, and the numbers with it. */
typedef struct {
    PyObject *context; /* borrowed: the task owns it for as long as it lives; NULL once out of the map */
    union {
        Live live;
        ToldLive with_told; /* only of a `told_entry_type` */
    };
} EntryData;

#define ENTRY_SIZE (offsetof(EntryData, live) + sizeof(Live))

static inline EntryData *
entry_data(ModuleState *state, PyObject *entry)
{
    return PyObject_GetTypeData(entry, state->entry_type);
}

static PyType_Slot entry_slots[] = {{0, NULL}};

static PyType_Spec entry_spec = {
    .name = "otel_concurrency.probes._native.TaskReference",
    .basicsize = -(int)ENTRY_SIZE,
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = entry_slots,
};

static PyType_Spec told_entry_spec = {
    .name = "otel_concurrency.probes._native.TaskReference",
    .basicsize = -(int)sizeof(EntryData),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = entry_slots,
};

static inline int
is_entry(ModuleState *state, PyObject *object)
{
    return Py_IS_TYPE(object, state->entry_type) || Py_IS_TYPE(object, state->told_entry_type);
}

/* --- the map from context to entry: open addressing, linear probing, deletion by shifting back --- */

static inline PyObject *
context_of(ModuleState *state, PyObject *entry)
{
    return entry_data(state, entry)->context;
}

static inline size_t
map_home(ModuleState *state, PyObject *context)
{
    return pointer_hash(context) & state->map_mask;
}

static inline PyObject *
map_find(ModuleState *state, PyObject *context)
{
    if (state->map_used == 0) {
        return NULL;
    }
    size_t place = map_home(state, context);
    PyObject *entry;
    while ((entry = state->map[place]) != NULL && context_of(state, entry) != context) {
        place = (place + 1) & state->map_mask;
    }
    return entry;
}

static void
map_place(ModuleState *state, PyObject *entry)
{
    size_t place = map_home(state, context_of(state, entry));
    while (state->map[place] != NULL) {
        place = (place + 1) & state->map_mask;
    }
    state->map[place] = entry;
}

/* Straight from the interpreter's arena allocator, whole pages: what a map grows out of goes back to the system, and does
   not stay in the heap as a hole that nothing fits. */
static PyObject **
map_memory(size_t size)
{
    PyObjectArenaAllocator arenas;
    PyObject_GetArenaAllocator(&arenas);
    PyObject **map = arenas.alloc(arenas.ctx, size * sizeof(PyObject *));
    if (map != NULL) {
        memset(map, 0, size * sizeof(PyObject *));
    }
    return map;
}

static void
map_free(PyObject **map, size_t size)
{
    PyObjectArenaAllocator arenas;
    PyObject_GetArenaAllocator(&arenas);
    if (map != NULL) {
        arenas.free(arenas.ctx, map, size * sizeof(PyObject *));
    }
}

static int
map_resize(ModuleState *state, size_t size)
{
    PyObject **before = state->map;
    size_t before_size = before != NULL ? state->map_mask + 1 : 0;
    PyObject **map = map_memory(size);
    if (map == NULL) {
        return -1;
    }
    state->map = map;
    state->map_mask = size - 1;
    for (size_t i = 0; i < before_size; i++) {
        if (before[i] != NULL) {
            map_place(state, before[i]);
        }
    }
    map_free(before, before_size);
    return 0;
}

/* Steals the reference to the entry on success. */
static int
map_add(ModuleState *state, PyObject *context, PyObject *entry)
{
    /* Above 3/4 full the map doubles: 8 bytes a place are 11 to 21 a task. */
    if (state->map == NULL || state->map_used + state->map_used / 3 >= state->map_mask) {
        if (map_resize(state, state->map == NULL ? 512 : (state->map_mask + 1) * 2) < 0) {
            return -1;
        }
    }
    entry_data(state, entry)->context = context;
    map_place(state, entry);
    state->map_used++;
    return 0;
}

/* Take an entry out of the map. Returns the map's reference to it, NULL if it was not there. */
static PyObject *
map_take(ModuleState *state, PyObject *context)
{
    PyObject *entry = map_find(state, context);
    if (entry == NULL) {
        return NULL;
    }
    size_t hole = map_home(state, context);
    while (state->map[hole] != entry) {
        hole = (hole + 1) & state->map_mask;
    }
    for (size_t next = (hole + 1) & state->map_mask; state->map[next] != NULL; next = (next + 1) & state->map_mask) {
        size_t home = map_home(state, context_of(state, state->map[next]));
        if (((next - home) & state->map_mask) >= ((next - hole) & state->map_mask)) {
            state->map[hole] = state->map[next];
            hole = next;
        }
    }
    state->map[hole] = NULL;
    state->map_used--;
    entry_data(state, entry)->context = NULL;
    if (state->map_mask >= 2048 && state->map_used * 8 < state->map_mask) {
        (void)map_resize(state, (state->map_mask + 1) / 4); /* without memory it stays large */
    }
    return entry;
}

/* --- the end of a task --- */

static void
entry_end(ModuleState *state, PyObject *entry, Outcome outcome, PyObject *error, int64_t now_ns, PyObject *context)
{
    EntryData *data = entry_data(state, entry);
    TaskProbe *probe = data->live.row->probe;
    PyObject *key = data->context;
    PyObject *held = key != NULL ? map_take(state, key) : NULL;
    if (data->live.has_told) {
        live_told(&data->live)->error = error;
    }
    live_end(&data->live, outcome, error != NULL ? Py_TYPE(error) : NULL, now_ns, context);
    Py_XDECREF(held);
    Py_DECREF(probe); /* taken when the task was entered */
}

/* Forget a task that a probe counts, while others may hold its entry: a frame of a step under way, for one. */
static void
entry_forget(ModuleState *state, Live *live)
{
    PyObject *entry = (PyObject *)((char *)live - state->entry_offset);
    PyObject *context = entry_data(state, entry)->context;
    TaskProbe *probe = live->row->probe;
    live_forget(live);
    PyObject *held = context != NULL ? map_take(state, context) : NULL;
    Py_XDECREF(held);
    Py_DECREF(probe); /* taken when the task was entered */
}

/* The weak references' callback: the task is gone, and this entry was still waiting for its end. */
static PyObject *
task_died(PyObject *module, PyObject *entry)
{
    ModuleState *state = PyModule_GetState(module);
    if (is_entry(state, entry) && !entry_data(state, entry)->live.done) {
        entry_end(state, entry, DESTROYED, NULL, 0, NULL);
    }
    Py_RETURN_NONE;
}

static PyMethodDef task_died_definition = {"task_died", task_died, METH_O, NULL};

/* Whether a task is done, asked at the end of every step: the unbound method is kept, looking it up is half the price. */
static int
task_is_done(ModuleState *state, PyObject *task)
{
    if (Py_TYPE(task) != state->done_type) {
        PyObject *done = PyObject_GetAttr((PyObject *)Py_TYPE(task), state->name_done);
        if (done == NULL) {
            PyErr_Clear();
            return 0;
        }
        Py_XSETREF(state->done_type, (PyTypeObject *)Py_NewRef(Py_TYPE(task)));
        Py_XSETREF(state->done, done);
    }
    PyObject *arguments[] = {task};
    PyObject *answer = PyObject_Vectorcall(state->done, arguments, 1, NULL);
    Py_XDECREF(answer);
    if (answer == NULL) {
        PyErr_Clear();
    }
    return answer == Py_True;
}

/* Ask the task how it ended. Returns 0 while it is not done; reads `_exception`, which marks nothing as retrieved. */
static int
task_outcome(ModuleState *state, PyObject *task, Outcome *outcome, PyObject **error)
{
    if (!task_is_done(state, task)) {
        return 0;
    }
    *error = NULL;
    *outcome = FINISHED;
    PyObject *cancelled = PyObject_CallMethodNoArgs(task, state->name_cancelled);
    if (cancelled == Py_True) {
        *outcome = CANCELLED;
    }
    else {
        PyObject *exception = PyObject_GetAttr(task, state->name_exception);
        if (exception != NULL && exception != Py_None) {
            *outcome = FAILED;
            *error = Py_NewRef(exception);
        }
        Py_XDECREF(exception);
    }
    Py_XDECREF(cancelled);
    PyErr_Clear();
    return 1;
}

static void
entry_check_end(ModuleState *state, PyObject *entry, int64_t now_ns)
{
    PyObject *task = NULL;
    PyObject *error = NULL;
    Outcome outcome;
    if (PyWeakref_GetRef(entry, &task) <= 0) {
        PyErr_Clear();
        return;
    }
    if (task_outcome(state, task, &outcome, &error)) {
        EntryData *data = entry_data(state, entry);
        if (!data->live.done) {
            if (data->live.has_told) {
                live_told(&data->live)->task = task;
            }
            entry_end(state, entry, outcome, error, now_ns, data->context);
        }
        Py_XDECREF(error);
    }
    Py_DECREF(task);
}

/* --- steps --- */

static void
begin_frame(ThreadSlot *slot, PyObject *entry, PyObject *outer_context)
{
    Live *live = &entry_data(slot->state, entry)->live;
    if (slot->depth == MAX_NESTED_STEPS || live->done || live->state == RUNNING) {
        return;
    }
    Frame *frame = &slot->frames[slot->depth++];
    frame->entry = Py_NewRef(entry);
    frame->disowned = 0;
    frame->before = live->state;
    frame->outer_context = outer_context;
    frame->step.row = live->row;
    frame->step.live = live;
    frame->step.outer = slot->innermost;
    frame->step.began_ns = monotonic_ns(&slot->state->clock);
    slot->innermost = &frame->step;
    live_set_state(live, RUNNING);
}

/* All counting is done here: only now it is certain whose step it was. */
static void
end_frame(ThreadSlot *slot)
{
    ModuleState *state = slot->state;
    int64_t now_ns = monotonic_ns(&state->clock);
    Frame *frame = &slot->frames[--slot->depth];
    PyObject *entry = frame->entry;
    int64_t began_ns = frame->step.began_ns;
    slot->innermost = frame->step.outer;
    EntryData *data = entry_data(state, entry);
    if (!data->live.done) {
        PyObject *pending = PyErr_GetRaisedException(); /* a context may be left with an exception on its way */
        if (frame->disowned) {
            live_set_state(&data->live, frame->before);
        }
        else {
            live_begin_step(&data->live, began_ns, data->context);
            live_end_step(&data->live, began_ns, now_ns, WAITING, slot->innermost, data->context);
            entry_check_end(state, entry, now_ns);
        }
        if (pending != NULL) {
            PyErr_SetRaisedException(pending);
        }
    }
    Py_DECREF(entry);
}

static int
context_switched(PyContextEvent event, PyObject *object)
{
    ThreadSlot *slot = this_thread;
    if (slot == NULL || event != Py_CONTEXT_SWITCHED) {
        return 0;
    }
    ModuleState *state = slot->state;
    if (state == NULL || state->interpreter != PyInterpreterState_Get()) {
        return 0;
    }
    PyObject *context = object == Py_None ? NULL : object;
    PyObject *before = slot->context;
    slot->context = context;
    Creation *creation = slot->creation;
    if (creation != NULL && creation->ended_ns == 0) {
        if (creation->began_ns == 0) {
            creation->outer_context = before;
            creation->began_ns = monotonic_ns(&state->clock);
        }
        else if (context == creation->outer_context) {
            creation->ended_ns = monotonic_ns(&state->clock);
        }
    }
    if (slot->depth > 0) {
        Frame *frame = &slot->frames[slot->depth - 1];
        if (context == frame->outer_context) {
            end_frame(slot);
            return 0;
        }
    }
    if (context != NULL) {
        PyObject *entry = map_find(state, context);
        if (entry != NULL) {
            begin_frame(slot, entry, before);
        }
    }
    return 0;
}

/* --- creation --- */

/* Enter a task that create_task just made. Returns 0 when it cannot be followed: then the twin counts it. */
static int
follow(TaskProbe *probe, ThreadSlot *slot, PyObject *loop, Row *row, PyObject *task, int64_t created_ns,
       Creation *creation, Begun *begun)
{
    ModuleState *state = probe->state;
    PyObject *context = PyObject_CallMethodNoArgs(task, state->name_get_context);
    if (context == NULL || !PyContext_CheckExact(context)) {
        PyErr_Clear();
        Py_XDECREF(context);
        return 0;
    }
    if (map_find(state, context) != NULL) {
        Py_DECREF(context);
        return 0; /* shared with a live task: whose step a switch would be, nobody could say */
    }
    PyObject *arguments[] = {NULL, task, state->task_died};
    int is_told = begun->span != NULL || begun->account != NULL;
    PyTypeObject *type = is_told ? state->told_entry_type : state->entry_type;
    PyObject *entry = PyObject_Vectorcall((PyObject *)type, arguments + 1, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    if (entry == NULL) {
        PyErr_Clear();
        Py_DECREF(context);
        return 0;
    }
    EntryData *data = entry_data(state, entry);
    memset(data, 0, is_told ? sizeof(EntryData) : ENTRY_SIZE);
    state->entry_offset = (size_t)((char *)&data->live - (char *)entry); /* the same for all */
    data->live.row = row;
    data->live.loop = loop_index(probe, loop);
    data->live.created_ns = created_ns;
    data->live.watched = 1;
    if (map_find(state, context) != NULL || map_add(state, context, entry) < 0) {
        data->live.done = 1;
        Py_DECREF(entry);
        Py_DECREF(context);
        return 0;
    }
    Py_INCREF(probe); /* the row is the probe's; given back when the task ends */
    told_attach(&data->live, begun);
    live_count(&data->live);
    if (creation->began_ns != 0) { /* eager: its first step lies behind it */
        int64_t ended_ns = creation->ended_ns != 0 ? creation->ended_ns : monotonic_ns(&state->clock);
        creation_leave(slot, creation, &data->live, ended_ns);
        live_begin_step(&data->live, creation->began_ns, context);
        live_end_step(&data->live, creation->began_ns, ended_ns, WAITING, NULL, context);
        Py_INCREF(entry);
        entry_check_end(state, entry, ended_ns);
        Py_DECREF(entry);
    }
    Py_DECREF(context);
    return 1;
}

static PyObject *
create_task_with_watcher(TaskProbe *probe, PyObject *const *arguments, size_t count, PyObject *keywords)
{
    ModuleState *state = probe->state;
    PyObject *context = given_context(arguments, count, keywords, state);
    if (context != NULL && map_find(state, context) != NULL && PyCoro_CheckExact(arguments[2])) {
        /* Two live tasks in one context: a switch would not tell whose step it is, a proxy does. */
        return create_task_with_proxy(probe, arguments, count, keywords);
    }
    ThreadSlot *slot = thread_slot(state);
    if (slot == NULL) {
        return PyObject_Vectorcall(arguments[0], arguments + 1, count - 1, keywords);
    }
    if (slot->depth == 0) {
        slot->context = PyThreadState_Get()->context; /* before its first switch nobody told which one is current */
    }
    Row *row = row_of(probe, arguments[2]); /* before: an eager task may be done after, and its frame gone */
    Begun begun = {NULL};
    if (probe->begin_span != NULL && context == NULL) {
        span_begin(probe, row, arguments[2], &begun);
    }
    Creation creation = {.outer = slot->creation, .told = begun.account, .slow_ns = probe->slow_ns};
    slot->creation = &creation;
    int64_t created_ns = monotonic_ns(&state->clock);
    PyObject *task = PyObject_Vectorcall(arguments[0], arguments + 1, count - 1, keywords);
    slot->creation = creation.outer;
    span_leave(probe, &begun);
    if (slot->depth == 0) {
        slot->context = PyThreadState_Get()->context; /* making a task may have made the thread's first context */
    }
    if (creation.outer != NULL) {
        creation.outer->inner_task = task;
    }
    if (task == NULL || task == creation.inner_task) {
        Py_CLEAR(creation.owner);
        span_abandon(probe, &begun);
        return task; /* a loop's create_task that calls another's: followed already */
    }
    if (!follow(probe, slot, arguments[1], row, task, created_ns, &creation, &begun)) {
        int64_t age_ns = monotonic_ns(&state->clock) - created_ns; /* the twin has a clock of its own */
        probe_count_foreign(probe, arguments[1], arguments[2], task, system_monotonic_ns() - age_ns, &begun);
    }
    Py_CLEAR(creation.owner); /* else the task has it */
    if (probe->died != NULL) {
        tell_of_died(probe);
    }
    return task;
}

/* --- reading --- */

/* What a live task waits for is read only when asked: of at most this many tasks a loop, the rest in proportion. */
#define MAX_STATES_READ 4096

/* Move from WAITING to SCHEDULED, in `states`, the tasks of a loop that were suspended without a future. */
static void
count_scheduled(TaskProbe *probe, Loop *loop, int64_t *states)
{
    ModuleState *state = probe->state;
    size_t offset = state->entry_offset;
    PyObject **entries = PyMem_Malloc(MAX_STATES_READ * sizeof(PyObject *));
    int64_t count = 0;
    int64_t scheduled = 0;
    if (entries == NULL) {
        return;
    }
    /* Held while looked at: letting a task go may end it, and change the list. */
    for (Live *live = loop->newest; live != NULL && count < MAX_STATES_READ; live = live->older) {
        if (live->watched && live->state == WAITING) {
            entries[count++] = Py_NewRef((PyObject *)((char *)live - offset));
        }
    }
    for (int64_t i = 0; i < count; i++) {
        PyObject *task = NULL;
        if (PyWeakref_GetRef(entries[i], &task) > 0) {
            PyObject *waiter = PyObject_GetAttr(task, state->name_fut_waiter);
            scheduled += waiter == Py_None;
            Py_XDECREF(waiter);
            Py_DECREF(task);
        }
        PyErr_Clear();
        Py_DECREF(entries[i]);
    }
    PyMem_Free(entries);
    if (count == MAX_STATES_READ) {
        scheduled = (int64_t)((double)scheduled * (double)states[WAITING] / (double)count);
    }
    states[SCHEDULED] += scheduled;
    states[WAITING] -= scheduled;
}

#endif
