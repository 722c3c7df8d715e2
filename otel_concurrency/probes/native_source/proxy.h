/* CPython 3.10 to 3.13: a transparent proxy that owns a task's coroutine and clocks every step.

   A task drives its coroutine through two doors, `am_send` and the method `throw` (Modules/_asynciomodule.c,
   task_step_impl); both stand here. Every other question is answered by the coroutine itself. */

#ifndef OTEL_CONCURRENCY_PROXY_H
#define OTEL_CONCURRENCY_PROXY_H

typedef struct Proxy {
    PyObject_HEAD
    PyObject *coroutine; /* NULL only while the proxy is taken apart */
    PyObject *weak_references;
    union {
        Live live;
        ToldLive with_told;
    };
} Proxy;

static inline Proxy *
as_proxy(PyObject *object)
{
    return (Proxy *)object;
}

/* Proxies of ended tasks, kept for the next ones as CPython keeps its own frequent objects: besides the allocation this
   saves the young collections that a new object a task would bring nearer. */
#define MAX_FREE_PROXIES 256

static Proxy *
proxy_allocate(ModuleState *state)
{
    Proxy *proxy = state->free_proxies;
    if (proxy == NULL) {
        return PyObject_GC_New(Proxy, state->proxy_type);
    }
    state->free_proxies = (Proxy *)proxy->coroutine;
    state->free_proxy_count--;
    PyObject_Init((PyObject *)proxy, state->proxy_type);
    return proxy;
}

static void
proxy_free(ModuleState *state, Proxy *proxy)
{
    if (state->free_proxy_count < MAX_FREE_PROXIES) {
        proxy->coroutine = (PyObject *)state->free_proxies;
        state->free_proxies = proxy;
        state->free_proxy_count++;
    }
    else {
        PyObject_GC_Del(proxy);
    }
}

static void
proxies_free_all(ModuleState *state)
{
    while (state->free_proxies != NULL) {
        Proxy *proxy = state->free_proxies;
        state->free_proxies = (Proxy *)proxy->coroutine;
        PyObject_GC_Del(proxy);
    }
    state->free_proxy_count = MAX_FREE_PROXIES; /* none comes back */
}

static PyObject *
proxy_new(TaskProbe *probe, PyObject *loop, PyObject *coroutine, Row *row)
{
    Proxy *proxy = proxy_allocate(probe->state);
    if (proxy == NULL) {
        return NULL;
    }
    proxy->coroutine = Py_NewRef(coroutine);
    proxy->weak_references = NULL;
    memset(&proxy->with_told, 0, sizeof(ToldLive));
    proxy->live.row = row;
    proxy->live.loop = loop_index(probe, loop);
    Py_INCREF(probe); /* the row is the probe's */
    proxy->live.created_ns = monotonic_ns(&probe->state->clock);
    PyObject_GC_Track(proxy);
    return (PyObject *)proxy;
}

static void
proxy_dealloc(PyObject *self)
{
    Proxy *proxy = as_proxy(self);
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_TRASHCAN_BEGIN(self, proxy_dealloc)
    if (proxy->weak_references != NULL) {
        PyObject_ClearWeakRefs(self);
    }
    TaskProbe *probe = proxy->live.row->probe;
    if (!proxy->live.done) {
        live_end(&proxy->live, DESTROYED, NULL, 0, NULL);
    }
    if (proxy->live.has_told) {
        told_free(live_told(&proxy->live));
    }
    Py_CLEAR(proxy->coroutine); /* runs its `finally` blocks if it was left suspended */
    proxy_free(probe->state, proxy);
    Py_DECREF(probe);
    Py_DECREF(type);
    Py_TRASHCAN_END
}

/* No tp_clear, as the coroutine has none: finalising it is what breaks a cycle through it. */
static int
proxy_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(as_proxy(self)->coroutine);
    Py_VISIT(as_proxy(self)->live.row->probe);
    if (as_proxy(self)->live.has_told) {
        Py_VISIT(live_told(&as_proxy(self)->live)->span);
    }
    return 0;
}

/* Keep how a class answers for `_must_cancel`, if nobody can change that: asyncio's own, in C. */
static NEVER_INLINE void
learn_flag(ModuleState *state, PyTypeObject *type)
{
    int is_fixed = !PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE) || PyType_HasFeature(type, Py_TPFLAGS_IMMUTABLETYPE);
    if (!is_fixed || type->tp_getattro != PyObject_GenericGetAttr) {
        return;
    }
    PyObject *flag = PyObject_GetAttr((PyObject *)type, state->name_must_cancel);
    if (flag != NULL && Py_IS_TYPE(flag, &PyGetSetDescr_Type)) {
        Py_INCREF(type);
        Py_XSETREF(state->flag_type, type);
        Py_XSETREF(state->flag, flag);
    }
    else {
        Py_XDECREF(flag);
        PyErr_Clear();
    }
}

static int
must_cancel(ModuleState *state, PyObject *task)
{
    PyTypeObject *type = Py_TYPE(task);
    PyObject *flag;
    if (type != state->flag_type) {
        learn_flag(state, type);
    }
    if (type == state->flag_type) {
        PyGetSetDef *defined = ((PyGetSetDescrObject *)state->flag)->d_getset;
        flag = defined->get(task, defined->closure);
    }
    else {
        flag = PyObject_GetAttr(task, state->name_must_cancel);
    }
    if (flag == NULL) {
        PyErr_Clear();
        return 0;
    }
    Py_DECREF(flag); /* only compared, never used */
    return flag == Py_True;
}

/* A coroutine that returned is normally a task that finished, but a task cancelled during its very last step ends
   cancelled (task_step_impl, "Task is cancelled right before coro stops"). */
static Outcome
outcome_of_return(Proxy *proxy)
{
    TaskProbe *probe = proxy->live.row->probe;
    PyObject *loop = probe->loops[proxy->live.loop].loop;
    if (probe->current_tasks == NULL || proxy->live.loop == MAX_LOOPS) {
        return FINISHED;
    }
    PyObject *task = PyDict_GetItemWithError(probe->current_tasks, loop);
    if (task == NULL) {
        PyErr_Clear();
        return FINISHED;
    }
    Py_INCREF(task);
    int cancelled = must_cancel(probe->state, task);
    Py_DECREF(task);
    return cancelled ? CANCELLED : FINISHED;
}

/* Whether an error that came out of the coroutine also ended it; "coroutine already executing" does not. */
static int
has_ended(Proxy *proxy)
{
    PyObject *frame = PyObject_GetAttr(proxy->coroutine, proxy->live.row->probe->state->name_cr_frame);
    int ended = frame == Py_None;
    Py_XDECREF(frame);
    PyErr_Clear();
    return ended;
}

static int
is_group(PyObject *type)
{
#if PY_VERSION_HEX >= 0x030B0000
    return PyErr_GivenExceptionMatches(type, PyExc_BaseExceptionGroup);
#else
    const char *name = ((PyTypeObject *)type)->tp_name; /* of the backport */
    return strcmp(name, "ExceptionGroup") == 0 || strcmp(name, "BaseExceptionGroup") == 0;
#endif
}

#define MAX_NURSERIES 32 /* looked into, one inside the other */

/* trio's nurseries make groups of what ended in them: one that holds nothing but cancellations is one. */
static int
is_cancellation(TaskProbe *probe, PyObject *type, PyObject *value, int in_trio, int depth)
{
    if (PyErr_GivenExceptionMatches(type, probe->cancelled_error)) {
        return 1;
    }
    if (!in_trio || value == NULL || depth == MAX_NURSERIES || !is_group(type)) {
        return 0;
    }
    PyObject *errors = PyObject_GetAttrString(value, "exceptions");
    int all = errors != NULL && PyTuple_Check(errors) && PyTuple_GET_SIZE(errors) > 0;
    for (Py_ssize_t i = 0; all && i < PyTuple_GET_SIZE(errors); i++) {
        PyObject *error = PyTuple_GET_ITEM(errors, i);
        all = is_cancellation(probe, (PyObject *)Py_TYPE(error), error, in_trio, depth + 1);
    }
    Py_XDECREF(errors);
    PyErr_Clear();
    return all;
}

static void
proxy_ended_with_error(Proxy *proxy, int64_t now_ns)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (has_ended(proxy) && !proxy->live.done) {
        TaskProbe *probe = proxy->live.row->probe;
        const char *loop_type = probe->loops[proxy->live.loop].type;
        int in_trio = loop_type != NULL && strcmp(loop_type, "trio") == 0;
        if (proxy->live.has_told) {
            PyErr_NormalizeException(&type, &value, &traceback);
            if (value != NULL && traceback != NULL) {
                PyException_SetTraceback(value, traceback);
            }
        }
        if (is_cancellation(probe, type, value, in_trio, 0)) {
            live_end(&proxy->live, CANCELLED, NULL, now_ns, NULL);
        }
        else {
            if (proxy->live.has_told) {
                live_told(&proxy->live)->error = value;
            }
            live_end(&proxy->live, FAILED, (PyTypeObject *)type, now_ns, NULL);
        }
    }
    PyErr_Restore(type, value, traceback);
}

/* One step, from either door. `error` NULL: send `argument`; else call `throw(*error)` of `error_count`. Once for each
   door, so that the one that every step goes through asks nothing about the other. */
static ALWAYS_INLINE PySendResult
proxy_step(Proxy *proxy, PyObject *argument, PyObject *const *error, Py_ssize_t error_count, PyObject **result)
{
    Live *live = &proxy->live;
    PyObject *coroutine = proxy->coroutine;
    if (coroutine == NULL) {
        *result = NULL;
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
        return PYGEN_ERROR;
    }
    ThreadSlot *slot = NULL;
    Step step;
    /* Re-entered while running, or driven on after its end: the coroutine refuses, and there is nothing to count. */
    int observed = !live->done && live->state != RUNNING;
    Py_INCREF(proxy);
    if (observed) {
        slot = thread_slot(live->row->probe->state);
        step.row = live->row;
        step.live = live;
        step.outer = NULL;
        step.began_ns = monotonic_ns(&live->row->probe->state->clock);
        if (slot != NULL) {
            step.outer = slot->innermost;
            slot->innermost = &step;
#ifdef WATCH_CONTEXTS
            if (slot->depth > 0 && slot->context == context_of_frame(slot)) {
                slot->frames[slot->depth - 1].disowned = 1;
            }
#endif
        }
        live_begin_step(live, step.began_ns, NULL);
    }
    PySendResult outcome;
    if (error == NULL) {
        /* What PyIter_Send does for an exact coroutine, without asking again whether it is one. */
        outcome = Py_TYPE(coroutine)->tp_as_async->am_send(coroutine, argument, result);
    }
    else {
        PyObject *throw = PyObject_GetAttr(coroutine, live->row->probe->state->name_throw);
        *result = throw != NULL ? PyObject_Vectorcall(throw, error, error_count, NULL) : NULL;
        Py_XDECREF(throw);
        outcome = *result != NULL ? PYGEN_NEXT : PYGEN_ERROR;
    }
    if (observed) {
        int64_t now_ns = monotonic_ns(&live->row->probe->state->clock);
        if (slot != NULL) {
            slot->innermost = step.outer;
        }
        if (live->done) {
            ; /* the probe was reset during this step, in a forked child: the task is the parent's */
        }
        else if (outcome == PYGEN_NEXT) {
            live_end_step(live, step.began_ns, now_ns, *result == Py_None ? SCHEDULED : WAITING, step.outer, NULL);
        }
        else {
            /* The histograms may look up a context variable, and that not with an exception set. */
            PyObject *type, *value, *traceback;
            PyErr_Fetch(&type, &value, &traceback);
            live_end_step(live, step.began_ns, now_ns, WAITING, step.outer, NULL);
            if (outcome == PYGEN_RETURN || (error != NULL && type == PyExc_StopIteration)) {
                live_end(live, outcome_of_return(proxy), NULL, now_ns, NULL);
                PyErr_Restore(type, value, traceback);
            }
            else {
                PyErr_Restore(type, value, traceback);
                proxy_ended_with_error(proxy, now_ns);
            }
        }
    }
    Py_DECREF(proxy);
    return outcome;
}

static PySendResult
proxy_am_send(PyObject *self, PyObject *argument, PyObject **result)
{
    return proxy_step(as_proxy(self), argument, NULL, 0, result);
}

static PyObject *
proxy_send(PyObject *self, PyObject *argument)
{
    PyObject *result;
    switch (proxy_step(as_proxy(self), argument, NULL, 0, &result)) {
    case PYGEN_NEXT:
        return result;
    case PYGEN_RETURN: {
        /* StopIteration(value), made whole so that a tuple or an exception as value stays one value. */
        PyObject *stop = result == Py_None ? PyObject_CallNoArgs(PyExc_StopIteration)
                                           : PyObject_CallOneArg(PyExc_StopIteration, result);
        if (stop != NULL) {
            PyErr_SetObject(PyExc_StopIteration, stop);
            Py_DECREF(stop);
        }
        Py_DECREF(result);
        return NULL;
    }
    default:
        return NULL;
    }
}

static PyObject *
proxy_throw(PyObject *self, PyObject *const *arguments, Py_ssize_t count)
{
    PyObject *result;
    /* Without arguments the coroutine's own TypeError comes back. */
    proxy_step(as_proxy(self), NULL, arguments, count, &result);
    return result;
}

static PyObject *
proxy_inner(PyObject *self)
{
    PyObject *coroutine = as_proxy(self)->coroutine;
    if (coroutine == NULL) {
        PyErr_SetString(PyExc_ReferenceError, "the coroutine of this task is gone");
    }
    return coroutine;
}

/* Ends no task: the task's own next step does, by failing on a closed coroutine. */
static PyObject *
proxy_close(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *coroutine = proxy_inner(self);
    if (coroutine == NULL) {
        return NULL;
    }
    Py_INCREF(coroutine);
    PyObject *result = PyObject_CallMethod(coroutine, "close", NULL);
    Py_DECREF(coroutine);
    return result;
}

static PyObject *
proxy_await(PyObject *self)
{
    PyObject *coroutine = proxy_inner(self);
    return coroutine != NULL ? PyObject_CallMethod(coroutine, "__await__", NULL) : NULL;
}

static PyObject *
proxy_getattro(PyObject *self, PyObject *name)
{
    PyObject *coroutine = proxy_inner(self);
    if (coroutine == NULL) {
        return NULL;
    }
    ModuleState *state = as_proxy(self)->live.row->probe->state;
    if (name == state->name_throw || name == state->name_send || name == state->name_close) {
        return PyObject_GenericGetAttr(self, name);
    }
    if (PyUnicode_Check(name) && !PyUnicode_CHECK_INTERNED(name)
        && (PyUnicode_Compare(name, state->name_throw) == 0 || PyUnicode_Compare(name, state->name_send) == 0
            || PyUnicode_Compare(name, state->name_close) == 0)) {
        return PyObject_GenericGetAttr(self, name);
    }
    return PyObject_GetAttr(coroutine, name);
}

static int
proxy_setattro(PyObject *self, PyObject *name, PyObject *value)
{
    PyObject *coroutine = proxy_inner(self);
    return coroutine != NULL ? PyObject_SetAttr(coroutine, name, value) : -1;
}

static PyObject *
proxy_repr(PyObject *self)
{
    PyObject *coroutine = proxy_inner(self);
    return coroutine != NULL ? PyObject_Repr(coroutine) : NULL;
}

static Py_hash_t
proxy_hash(PyObject *self)
{
    PyObject *coroutine = proxy_inner(self);
    return coroutine != NULL ? PyObject_Hash(coroutine) : -1;
}

static PyObject *
proxy_richcompare(PyObject *self, PyObject *other, int operation)
{
    PyObject *coroutine = proxy_inner(self);
    if (coroutine == NULL) {
        return NULL;
    }
    PyTypeObject *proxy_type = as_proxy(self)->live.row->probe->state->proxy_type;
    if (Py_IS_TYPE(other, proxy_type) && as_proxy(other)->coroutine != NULL) {
        other = as_proxy(other)->coroutine;
    }
    return PyObject_RichCompare(coroutine, other, operation);
}

static PyMethodDef proxy_methods[] = {
    {"send", proxy_send, METH_O, NULL},
    {"throw", (PyCFunction)(void (*)(void))proxy_throw, METH_FASTCALL, NULL},
    {"close", proxy_close, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef proxy_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Proxy, weak_references), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot proxy_slots[] = {
    {Py_tp_dealloc, proxy_dealloc},     {Py_tp_traverse, proxy_traverse},
    {Py_tp_getattro, proxy_getattro},   {Py_tp_setattro, proxy_setattro},
    {Py_tp_repr, proxy_repr},           {Py_tp_hash, proxy_hash},
    {Py_tp_richcompare, proxy_richcompare},
    {Py_tp_methods, proxy_methods},     {Py_tp_members, proxy_members},
    {Py_am_send, proxy_am_send},        {Py_am_await, proxy_await},
    {0, NULL},
};

static PyType_Spec proxy_spec = {
    .name = "otel_concurrency.probes._native.coroutine",
    .basicsize = sizeof(Proxy),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC
#ifdef Py_TPFLAGS_DISALLOW_INSTANTIATION
             | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE
#endif
    ,
    .slots = proxy_slots,
};

/* The `context=` of a create_task call, if it was given one. Borrowed. */
static PyObject *
given_context(PyObject *const *arguments, size_t count, PyObject *keywords, ModuleState *state)
{
    for (Py_ssize_t i = 0; keywords != NULL && i < PyTuple_GET_SIZE(keywords); i++) {
        if (PyUnicode_Compare(PyTuple_GET_ITEM(keywords, i), state->name_context) == 0) {
            PyObject *given = arguments[count + i];
            return given != Py_None ? given : NULL;
        }
    }
    return NULL;
}

/* Call create_task with a proxy in the place of the coroutine. */
static PyObject *
create_task_with_proxy(TaskProbe *probe, PyObject *const *arguments, size_t count, PyObject *keywords)
{
    PyObject *room[8];
    size_t total = count + (keywords != NULL ? (size_t)PyTuple_GET_SIZE(keywords) : 0);
    PyObject **call = total <= Py_ARRAY_LENGTH(room) ? room : PyMem_Malloc(total * sizeof(PyObject *));
    if (call == NULL) {
        return PyErr_NoMemory();
    }
    PyObject *task = NULL;
    Row *row = row_of(probe, arguments[2]);
    Begun begun = {NULL};
    if (probe->begin_span != NULL && given_context(arguments, count, keywords, probe->state) == NULL) {
        span_begin(probe, row, arguments[2], &begun);
    }
    PyObject *proxy = proxy_new(probe, arguments[1], arguments[2], row);
    if (proxy != NULL) {
        Live *live = &as_proxy(proxy)->live;
        told_attach(live, &begun);
        memcpy(call, arguments, total * sizeof(PyObject *));
        call[2] = proxy;
        task = PyObject_Vectorcall(call[0], call + 1, (count - 1) | PY_VECTORCALL_ARGUMENTS_OFFSET, keywords);
        if (!live->counted) {
            if (task != NULL) {
                live_count(live);
            }
            else {
                live->done = 1; /* refused: there never was a task */
                Told *told = live_told(live);
                if (told != NULL) {
                    begun.span = Py_XNewRef(told->span);
                    live_set_told(live, NULL);
                    told_free(told);
                }
            }
        }
        Py_DECREF(proxy);
    }
    span_leave(probe, &begun);
    span_abandon(probe, &begun);
    if (probe->died != NULL && task != NULL) {
        tell_of_died(probe);
    }
    if (call != room) {
        PyMem_Free(call);
    }
    return task;
}

#endif
