/* What happens to work items on their way to a worker process and back: the twin of probes/pure_crossing.py.

   A round trip changes thread and process half a dozen times, each time with cold caches: a frame of Python there costs
   several times what it costs in a loop. So what stands in the place of a pool's own functions (native_source/stations.h)
   is C, and what a worker keeps of the item that it runs is here; so is, for all but the first of items that come alike,
   what the observer would do (native_source/again.h). */

#ifndef OTEL_CONCURRENCY_CROSSING_H
#define OTEL_CONCURRENCY_CROSSING_H

#include "again.h"

typedef struct {
    PyObject_HEAD
    struct ModuleState *state;
    PyObject *module;      /* keeps `state` alive */
    PyObject *observer;    /* NULL: none */
    PyObject *trouble;     /* told of what went wrong in here, or in the observer */
    PyObject *context_var; /* NULL: none */
    PyObject *again;       /* how items like the last one begin; NULL: the observer knows */
    /* The item that this process runs as a worker. */
    PyObject *key;  /* NULL: one that is not followed, or none */
    PyObject *end;  /* what the observer returned; NULL: nothing, or it was called */
    PyObject *late; /* what that returned, or brought; NULL: nothing, or it was called */
    PyObject *error; /* what `late` is told, if the end brought it; else NULL, as `stacktrace` */
    PyObject *stacktrace;
    int64_t ended_unix_ns;
    int64_t began_ns;
    int64_t queue_ns;
    int64_t run_ns; /* negative: it runs */
} Crossing;

/* Hand the exception that is set to `trouble`; what is no Exception passes: -1. */
static int
crossing_fence(PyObject *trouble)
{
    if (!PyErr_ExceptionMatches(PyExc_Exception)) {
        return -1;
    }
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    PyErr_NormalizeException(&type, &error, &traceback);
    if (traceback != NULL) {
        PyException_SetTraceback(error, traceback);
    }
    PyObject *told = PyObject_CallOneArg(trouble, error);
    Py_XDECREF(type);
    Py_XDECREF(error);
    Py_XDECREF(traceback);
    if (told == NULL && !PyErr_ExceptionMatches(PyExc_Exception)) {
        return -1;
    }
    PyErr_Clear();
    Py_XDECREF(told);
    return 0;
}

/* Whether a context variable has a value that is true. */
static int
has_content(PyObject *variable)
{
    PyObject *value = NULL;
    if (PyContextVar_Get(variable, NULL, &value) < 0) {
        return -1;
    }
    int has = value == NULL ? 0 : PyObject_IsTrue(value);
    Py_XDECREF(value);
    return has;
}

/* Do what the item before has left to do. -1: something else than an Exception was raised. */
static int
crossing_finish_item(Crossing *crossing)
{
    PyObject *late = crossing->late;
    if (late == NULL) {
        return 0;
    }
    PyObject *ended = NULL, *done = NULL;
    PyObject *error = crossing->error;
    PyObject *stacktrace = crossing->stacktrace;
    crossing->late = crossing->error = crossing->stacktrace = NULL;
    if (error == NULL) {
        done = PyObject_CallNoArgs(late);
    }
    else if ((ended = PyLong_FromLongLong(crossing->ended_unix_ns)) != NULL) {
        PyObject *told[] = {error, stacktrace, ended};
        done = PyObject_Vectorcall(late, told, 3, NULL);
    }
    Py_XDECREF(ended);
    Py_XDECREF(stacktrace);
    Py_XDECREF(error);
    Py_DECREF(late);
    if (done == NULL) {
        return crossing_fence(crossing->trouble);
    }
    Py_DECREF(done);
    return 0;
}

/* Begin an item as the ones before it; returns what ends it, or NULL: that holds no more, or, with an exception, trouble. */
static PyObject *
crossing_repeat(Crossing *crossing, PyObject *parcel, PyObject *kind, PyObject *function, PyObject *arguments,
                PyObject *queue_ns)
{
    if (crossing->again == NULL || again_holds(crossing->again, PyTuple_GET_ITEM(parcel, 0)) <= 0) {
        return NULL;
    }
    PyObject *begun = PyLong_FromLongLong(unix_ns());
    PyObject *item = NULL;
    if (begun != NULL) {
        item = PyTuple_Pack(6, function, arguments, PyTuple_GET_ITEM(parcel, 2), kind, queue_ns, begun);
    }
    Py_XDECREF(begun);
    if (item == NULL) {
        return NULL;
    }
    PyObject *again = Py_NewRef(crossing->again);
    PyObject *end = again_begin(again, crossing->context_var, crossing->state->name_item, item);
    Py_DECREF(again);
    Py_DECREF(item);
    return end;
}

/* Tell the observer; returns what ends the item, None, or NULL where that is trouble. */
static PyObject *
crossing_observe(Crossing *crossing, PyObject *parcel, PyObject *kind, PyObject *function, PyObject *arguments)
{
    PyObject *carrier = PyTuple_GET_ITEM(parcel, 0);
    if (crossing->observer == NULL) {
        Py_RETURN_NONE;
    }
    if (crossing->context_var != NULL && PyDict_GET_SIZE(carrier) == 0) {
        int has = has_content(crossing->context_var);
        if (has <= 0) {
            return has < 0 ? NULL : Py_NewRef(Py_None);
        }
    }
    PyObject *queue_ns = PyLong_FromLongLong(crossing->queue_ns);
    if (queue_ns == NULL) {
        return NULL;
    }
    PyObject *end = crossing_repeat(crossing, parcel, kind, function, arguments, queue_ns);
    if (end == NULL && !PyErr_Occurred()) {
        PyObject *told[] = {function, arguments, carrier, PyTuple_GET_ITEM(parcel, 2), kind, queue_ns};
        end = PyObject_Vectorcall(crossing->observer, told, 6, NULL);
        if (end != NULL && crossing->context_var != NULL && PyTuple_CheckExact(end) && PyTuple_GET_SIZE(end) == 3
            && again_check(PyTuple_GET_ITEM(end, 2))) {
            Py_XSETREF(crossing->again, Py_NewRef(PyTuple_GET_ITEM(end, 2)));
        }
    }
    Py_DECREF(queue_ns);
    return end;
}

/* `parcel` is NULL where nothing travelled beside the item. The caller holds all of these. */
static int
crossing_begin_item(Crossing *crossing, PyObject *key, PyObject *parcel, PyObject *kind, PyObject *function,
                    PyObject *arguments)
{
    int64_t began_ns = system_monotonic_ns(); /* compared with the submitter's */
    if (crossing_finish_item(crossing) < 0) {
        return -1;
    }
    Py_CLEAR(crossing->end);
    Py_CLEAR(crossing->key);
    if (parcel == NULL) {
        return 0;
    }
    int64_t submitted_ns;
    if (!PyTuple_CheckExact(parcel) || PyTuple_GET_SIZE(parcel) != 3 || !PyDict_CheckExact(PyTuple_GET_ITEM(parcel, 0))
        || !PyLong_CheckExact(PyTuple_GET_ITEM(parcel, 1))) {
        PyErr_SetString(PyExc_TypeError, "a parcel is a carrier, a time, and a pool's name");
        return crossing_fence(crossing->trouble);
    }
    if (ns_of(PyTuple_GET_ITEM(parcel, 1), &submitted_ns) < 0) {
        return crossing_fence(crossing->trouble);
    }
    crossing->queue_ns = began_ns > submitted_ns ? began_ns - submitted_ns : 0;
    crossing->began_ns = began_ns;
    crossing->run_ns = -1;
    crossing->key = Py_NewRef(key);
    PyObject *end = crossing_observe(crossing, parcel, kind, function, arguments);
    if (end == NULL) {
        return crossing_fence(crossing->trouble);
    }
    if (end == Py_None) {
        Py_DECREF(end);
        return 0;
    }
    Py_XSETREF(crossing->end, end);
    crossing->began_ns = system_monotonic_ns(); /* what the observer took is neither queue nor run time */
    return 0;
}

/* An end is called, or it is a token, with or without what is told later: that puts back what was current before, and
   not a line of Python is between the item and whoever waits for its result. -1: it raised. */
static int
crossing_call_end(Crossing *crossing, PyObject *end, PyObject *error, PyObject *stacktrace)
{
    PyObject *token = PyContextToken_CheckExact(end) ? end : NULL;
    if (PyTuple_CheckExact(end) && PyTuple_GET_SIZE(end) >= 2) {
        token = PyTuple_GET_ITEM(end, 0);
        Py_XSETREF(crossing->late, Py_NewRef(PyTuple_GET_ITEM(end, 1)));
        Py_XSETREF(crossing->error, Py_NewRef(error));
        Py_XSETREF(crossing->stacktrace, Py_NewRef(stacktrace));
        crossing->ended_unix_ns = unix_ns();
    }
    if (token != NULL) {
        return crossing->context_var != NULL ? PyContextVar_Reset(crossing->context_var, token) : 0;
    }
    PyObject *told[] = {error, stacktrace};
    PyObject *late = PyObject_Vectorcall(end, told, 2, NULL);
    if (late == NULL) {
        return -1;
    }
    if (late == Py_None) {
        Py_CLEAR(late);
    }
    Py_XSETREF(crossing->late, late);
    return 0;
}

/* What travels beside the result, None for an item that is not followed; the second call says what the first did. */
static PyObject *
crossing_end_item(Crossing *crossing, PyObject *key, PyObject *error, PyObject *stacktrace)
{
    int is_it = crossing->key != NULL ? PyObject_RichCompareBool(crossing->key, key, Py_EQ) : 0;
    if (is_it <= 0) {
        return is_it < 0 ? NULL : Py_NewRef(Py_None);
    }
    if (crossing->run_ns < 0) {
        crossing->run_ns = system_monotonic_ns() - crossing->began_ns;
        PyObject *end = crossing->end;
        if (end != NULL) {
            crossing->end = NULL;
            int called = crossing_call_end(crossing, end, error, stacktrace);
            Py_DECREF(end);
            if (called < 0 && crossing_fence(crossing->trouble) < 0) {
                return NULL;
            }
        }
    }
    return Py_BuildValue("(LL)", (long long)crossing->queue_ns, (long long)crossing->run_ns);
}

PyDoc_STRVAR(crossing_begin_doc,
"begin(key, parcel, kind, function, args, /)\n--\n\n"
"Take note of the item that this process runs next.");

static PyObject *
crossing_begin(Crossing *crossing, PyObject *const *args, Py_ssize_t count)
{
    if (count != 5) {
        PyErr_SetString(PyExc_TypeError, "begin() takes a key, a parcel, a kind, a function and its arguments");
        return NULL;
    }
    PyObject *parcel = args[1] != Py_None ? args[1] : NULL;
    if (crossing_begin_item(crossing, args[0], parcel, args[2], args[3], args[4]) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(crossing_end_doc,
"end(key, error, stacktrace, /)\n--\n\n"
"Return what travels beside the result of an item.");

static PyObject *
crossing_end(Crossing *crossing, PyObject *const *args, Py_ssize_t count)
{
    if (count != 3) {
        PyErr_SetString(PyExc_TypeError, "end() takes a key, an error and its traceback");
        return NULL;
    }
    return crossing_end_item(crossing, args[0], args[1], args[2]);
}

PyDoc_STRVAR(crossing_finish_doc,
"finish()\n--\n\n"
"Do what the item before has left to do, now that its result is out.");

static PyObject *
crossing_finish(Crossing *crossing, PyObject *Py_UNUSED(ignored))
{
    if (crossing_finish_item(crossing) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

#include "stations.h"

PyDoc_STRVAR(crossing_doc,
"Crossing(observer, trouble, *, context_var=None)\n--\n\n"
"Work items on their way to another process and back.\n\n"
"Args:\n"
"    observer: Called around each item that this process runs as a worker, or None.\n"
"    trouble: Called with an exception that came up in here.\n"
"    context_var: An item that brings nothing does not bother the observer while this is empty.");

static PyObject *
crossing_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"observer", "trouble", "context_var", NULL};
    PyObject *observer;
    PyObject *trouble;
    PyObject *variable = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "OO|$O", names, &observer, &trouble, &variable)) {
        return NULL;
    }
    if ((observer != Py_None && !PyCallable_Check(observer)) || !PyCallable_Check(trouble)
        || (variable != Py_None && !PyContextVar_CheckExact(variable))) {
        PyErr_SetString(PyExc_TypeError, "observer and trouble are callable, and context_var a ContextVar or None");
        return NULL;
    }
    Crossing *crossing = (Crossing *)type->tp_alloc(type, 0); /* all zero */
    if (crossing == NULL) {
        return NULL;
    }
    crossing->module = Py_XNewRef(PyType_GetModule(type));
    crossing->state = crossing->module != NULL ? PyModule_GetState(crossing->module) : NULL;
    crossing->observer = observer != Py_None ? Py_NewRef(observer) : NULL;
    crossing->trouble = Py_NewRef(trouble);
    crossing->context_var = variable != Py_None ? Py_NewRef(variable) : NULL;
    if (crossing->state == NULL) {
        Py_CLEAR(crossing);
    }
    return (PyObject *)crossing;
}

static int
crossing_traverse(Crossing *crossing, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(crossing));
    Py_VISIT(crossing->module);
    Py_VISIT(crossing->observer);
    Py_VISIT(crossing->trouble);
    Py_VISIT(crossing->context_var);
    Py_VISIT(crossing->again);
    Py_VISIT(crossing->key);
    Py_VISIT(crossing->end);
    Py_VISIT(crossing->late);
    Py_VISIT(crossing->error);
    Py_VISIT(crossing->stacktrace);
    return 0;
}

/* `trouble` and the module stay: a call may be on its way. */
static int
crossing_clear(Crossing *crossing)
{
    Py_CLEAR(crossing->observer);
    Py_CLEAR(crossing->again);
    Py_CLEAR(crossing->key);
    Py_CLEAR(crossing->end);
    Py_CLEAR(crossing->late);
    Py_CLEAR(crossing->error);
    Py_CLEAR(crossing->stacktrace);
    return 0;
}

static void
crossing_dealloc(Crossing *crossing)
{
    PyTypeObject *type = Py_TYPE(crossing);
    PyObject_GC_UnTrack(crossing);
    crossing_clear(crossing);
    Py_XDECREF(crossing->trouble);
    Py_XDECREF(crossing->context_var);
    Py_XDECREF(crossing->module);
    type->tp_free((PyObject *)crossing);
    Py_DECREF(type);
}

static PyMethodDef crossing_methods[] = {
    {"begin", (PyCFunction)(void (*)(void))crossing_begin, METH_FASTCALL, crossing_begin_doc},
    {"end", (PyCFunction)(void (*)(void))crossing_end, METH_FASTCALL, crossing_end_doc},
    {"finish", (PyCFunction)crossing_finish, METH_NOARGS, crossing_finish_doc},
    {"unwrap", (PyCFunction)crossing_unwrap, METH_O, crossing_unwrap_doc},
    {"arrive", (PyCFunction)crossing_arrive, METH_O, crossing_arrive_doc},
    {"answer", (PyCFunction)crossing_answer, METH_O, crossing_answer_doc},
    {"send_back", (PyCFunction)crossing_send_back, METH_O, crossing_send_back_doc},
    {"take", (PyCFunction)crossing_take, METH_O, crossing_take_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot crossing_slots[] = {
    {Py_tp_new, crossing_new},         {Py_tp_dealloc, crossing_dealloc}, {Py_tp_traverse, crossing_traverse},
    {Py_tp_clear, crossing_clear},     {Py_tp_methods, crossing_methods}, {Py_tp_doc, (void *)crossing_doc},
    {0, NULL},
};

static PyType_Spec crossing_spec = {
    .name = "otel_concurrency.probes._native.Crossing",
    .basicsize = sizeof(Crossing),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = crossing_slots,
};

#endif
