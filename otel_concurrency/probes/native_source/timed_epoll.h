/* In the place of a selector's `select.epoll`: an object whose `poll` is timed, and that is the original in all else.

   The selector's `select`, a Python function, stays itself: the interpreter calls it as it would without us, while a `select`
   of ours has to call it from C, in an evaluation loop of its own. `poll` is a method as the original's is, and attributes are
   looked for as everybody's are, so CPython 3.11 and later call it with the instructions that are made for that; it calls the
   original's function itself. The price is that all that an epoll has stands here by name. */

#ifndef OTEL_CONCURRENCY_TIMED_EPOLL_H
#define OTEL_CONCURRENCY_TIMED_EPOLL_H

typedef PyObject *(*FastMethod)(PyObject *self, PyObject *const *arguments, Py_ssize_t count, PyObject *keywords);

typedef struct TimedEpoll {
    TimedWait wait;
    PyObject *poll;  /* of the original */
    FastMethod in_c; /* what that calls, with the original; NULL: it is of no such kind */
} TimedEpoll;

/* `EpollSelector.select` says 0 for a look, a negative number for a wait without end. */
static int
is_look(PyObject *const *arguments, Py_ssize_t count)
{
    if (count == 0) {
        return 0;
    }
    if (PyLong_CheckExact(arguments[0])) {
        int overflow = 0;
        return PyLong_AsLongAndOverflow(arguments[0], &overflow) == 0 && overflow == 0;
    }
    return PyFloat_CheckExact(arguments[0]) && PyFloat_AS_DOUBLE(arguments[0]) == 0;
}

static inline PyObject *
ask_epoll(TimedWait *wait, PyObject *const *arguments, size_t count, PyObject *keywords)
{
    TimedEpoll *epoll = (TimedEpoll *)wait;
    return epoll->in_c != NULL ? epoll->in_c(wait->original, arguments, (Py_ssize_t)count, keywords)
                               : PyObject_Vectorcall(epoll->poll, arguments, count, keywords);
}

static PyObject *
timed_epoll_poll(TimedEpoll *epoll, PyObject *const *arguments, Py_ssize_t count, PyObject *keywords)
{
    return timed_call(&epoll->wait, ask_epoll, arguments, (size_t)count, keywords, is_look(arguments, count));
}

static PyObject *
timed_epoll_get(TimedEpoll *epoll, void *name)
{
    return PyObject_GetAttrString(epoll->wait.original, name);
}

static int
timed_epoll_setattro(TimedEpoll *epoll, PyObject *name, PyObject *value)
{
    return PyObject_SetAttr(epoll->wait.original, name, value);
}

/* `with` asks the type for these two. */
static PyObject *
timed_epoll_enter(TimedEpoll *epoll, PyObject *Py_UNUSED(ignored))
{
    return PyObject_CallMethod(epoll->wait.original, "__enter__", NULL);
}

static PyObject *
timed_epoll_exit(TimedEpoll *epoll, PyObject *arguments)
{
    PyObject *exit = PyObject_GetAttrString(epoll->wait.original, "__exit__");
    PyObject *result = exit != NULL ? PyObject_Call(exit, arguments, NULL) : NULL;
    Py_XDECREF(exit);
    return result;
}

static int
timed_epoll_traverse(TimedEpoll *epoll, visitproc visit, void *arg)
{
    Py_VISIT(epoll->poll);
    return timed_wait_traverse(&epoll->wait, visit, arg);
}

static void
timed_epoll_dealloc(TimedEpoll *epoll)
{
    PyObject_GC_UnTrack(epoll);
    Py_XDECREF(epoll->poll);
    timed_wait_dealloc(&epoll->wait);
}

static PyMethodDef timed_epoll_methods[] = {
    {"poll", (PyCFunction)(void (*)(void))timed_epoll_poll, METH_FASTCALL | METH_KEYWORDS, NULL},
    {"__enter__", (PyCFunction)timed_epoll_enter, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)timed_epoll_exit, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

#define FROM_EPOLL(name) {name, (getter)timed_epoll_get, NULL, NULL, name}

static PyGetSetDef timed_epoll_attributes[] = {
    FROM_EPOLL("__class__"), FROM_EPOLL("__doc__"),  FROM_EPOLL("close"),    FROM_EPOLL("closed"),     FROM_EPOLL("fileno"),
    FROM_EPOLL("fromfd"),    FROM_EPOLL("modify"),   FROM_EPOLL("register"), FROM_EPOLL("unregister"), {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot timed_epoll_slots[] = {
    {Py_tp_dealloc, timed_epoll_dealloc},   {Py_tp_traverse, timed_epoll_traverse},
    {Py_tp_clear, timed_wait_clear},        {Py_tp_getset, timed_epoll_attributes},
    {Py_tp_setattro, timed_epoll_setattro}, {Py_tp_methods, timed_epoll_methods},
    {Py_tp_repr, timed_wait_repr},          {0, NULL},
};

static PyType_Spec timed_epoll_spec = {
    .name = "select.epoll", /* for what Python says of an attribute that it has not */
    .basicsize = sizeof(TimedEpoll),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC
#ifdef Py_TPFLAGS_DISALLOW_INSTANTIATION
             | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE
#endif
    ,
    .slots = timed_epoll_slots,
};

PyDoc_STRVAR(timer_begin_epoll_doc,
"begin_epoll(original, /)\n--\n\n"
"A run begins in this thread: return what to use in the place of the original, a `select.epoll`.");

static PyObject *
timer_begin_epoll(LoopTimer *timer, PyObject *original)
{
    PyObject *poll = PyObject_GetAttrString(original, "poll");
    if (poll == NULL) {
        return NULL;
    }
    TimedEpoll *epoll = (TimedEpoll *)timer_begin_wait(timer, timer->state->timed_epoll_type, original);
    if (epoll == NULL) {
        Py_DECREF(poll);
        return NULL;
    }
    epoll->poll = poll;
    epoll->in_c = NULL;
    if (PyCFunction_CheckExact(poll) && PyCFunction_GET_FLAGS(poll) == (METH_FASTCALL | METH_KEYWORDS)
        && PyCFunction_GET_SELF(poll) == original) {
        epoll->in_c = (FastMethod)(void (*)(void))PyCFunction_GET_FUNCTION(poll);
    }
    PyObject_GC_Track(epoll);
    return (PyObject *)epoll;
}

#endif
