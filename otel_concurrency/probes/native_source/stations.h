/* What stands in the place of a pool's own functions, where its work items pass: the second half of crossing.h.

   A station calls the function that was there, with the very arguments that it was called with, and lets its result or
   exception through. Trouble of ours is told to the crossing; turned off, a station does what the original does. */

#ifndef OTEL_CONCURRENCY_STATIONS_H
#define OTEL_CONCURRENCY_STATIONS_H

#define MAX_CALL_ITEM_ARGUMENTS 8

typedef struct {
    PyObject_HEAD
    vectorcallfunc call;
    PyObject *original; /* NULL: there was none */
    Crossing *crossing;
    ModuleState *state; /* the crossing's */
    char is_on;
} Station;

static PyObject *
call_original(Station *station, PyObject *const *args, size_t flags, PyObject *keywords)
{
    return PyObject_Vectorcall(station->original, args, flags, keywords);
}

/* A new reference to an attribute; NULL without an exception where there is none. */
static PyObject *
attribute_of(PyObject *object, PyObject *name)
{
    PyObject *found = PyObject_GetAttr(object, name);
    if (found == NULL && PyErr_ExceptionMatches(PyExc_AttributeError)) {
        PyErr_Clear();
    }
    return found;
}

/* --- in the submitting process --- */

/* _CallItem.__init__(call, work_id, fn, args, kwargs) */
static PyObject *
station_unwrap(PyObject *self, PyObject *const *args, size_t flags, PyObject *keywords)
{
    Station *station = (Station *)self;
    Py_ssize_t count = PyVectorcall_NARGS(flags);
    Py_ssize_t all = count + (keywords != NULL ? PyTuple_GET_SIZE(keywords) : 0);
    if (count < 3 || all > MAX_CALL_ITEM_ARGUMENTS || !Py_IS_TYPE(args[2], station->state->sent_type)
        || ((Sent *)args[2])->function == NULL) {
        return call_original(station, args, flags, keywords);
    }
    Sent *sent = (Sent *)args[2];
    PyObject *function = Py_NewRef(sent->function);
    PyObject *plain[MAX_CALL_ITEM_ARGUMENTS];
    for (Py_ssize_t i = 0; i < all; i++) {
        plain[i] = i == 2 ? function : args[i];
    }
    PyObject *result = PyObject_Vectorcall(station->original, plain, (size_t)count, keywords);
    Py_DECREF(function);
    if (result != NULL && station->is_on && PyObject_SetAttr(args[0], station->state->name_key, sent->parcel) < 0
        && crossing_fence(station->crossing->trouble) < 0) {
        Py_CLEAR(result);
    }
    return result;
}

/* What a result, or its absence, says of an item that is on its way; -1 with an exception: trouble. */
static int
tell_sent(Station *station, PyObject *manager, PyObject *result)
{
    PyObject *number = attribute_of(result, station->state->name_work_id); /* up to 3.12 a result may be a process id instead */
    if (number == NULL) {
        return PyErr_Occurred() ? -1 : 0;
    }
    PyObject *pending = PyObject_GetAttr(manager, station->state->name_pending_work_items);
    PyObject *work = NULL;
    if (pending != NULL && PyDict_Check(pending)) {
        work = Py_XNewRef(PyDict_GetItemWithError(pending, number));
    }
    Py_DECREF(number);
    Py_XDECREF(pending);
    PyObject *sent = work != NULL ? PyObject_GetAttr(work, station->state->name_fn) : NULL;
    Py_XDECREF(work);
    if (sent == NULL || !Py_IS_TYPE(sent, station->state->sent_type)) {
        Py_XDECREF(sent);
        return PyErr_Occurred() ? -1 : 0;
    }
    PyObject *timing = attribute_of(result, station->state->name_key);
    PyObject *error = PyErr_Occurred() ? NULL : PyObject_GetAttr(result, station->state->name_failure);
    PyObject *error_type = NULL;
    if (error != NULL && error != Py_None) {
        error_type = type_name(Py_TYPE(error));
    }
    int told = PyErr_Occurred() ? -1 : sent_tell((Sent *)sent, system_monotonic_ns(), timing, error_type);
    Py_XDECREF(error_type);
    Py_XDECREF(error);
    Py_XDECREF(timing);
    Py_DECREF(sent);
    return told;
}

/* _ExecutorManagerThread.process_result_item(manager, result). We come first: after it, we would fight with whoever waits
   for the result. */
static PyObject *
station_take(PyObject *self, PyObject *const *args, size_t flags, PyObject *keywords)
{
    Station *station = (Station *)self;
    if (station->is_on && PyVectorcall_NARGS(flags) == 2 && tell_sent(station, args[0], args[1]) < 0
        && crossing_fence(station->crossing->trouble) < 0) {
        return NULL;
    }
    return call_original(station, args, flags, keywords);
}

/* --- in the worker process --- */

static int
begin_call(Station *station, PyObject *state, PyObject *parcel)
{
    PyObject *number = Py_XNewRef(PyDict_GetItemWithError(state, station->state->name_work_id));
    PyObject *function = Py_XNewRef(PyDict_GetItemWithError(state, station->state->name_fn));
    PyObject *arguments = Py_XNewRef(PyDict_GetItemWithError(state, station->state->name_args));
    int begun = PyErr_Occurred() ? crossing_fence(station->crossing->trouble) : 0;
    if (number != NULL && function != NULL && arguments != NULL) {
        begun = crossing_begin_item(station->crossing, number, parcel, station->state->name_process, function,
                                    arguments);
    }
    Py_XDECREF(number);
    Py_XDECREF(function);
    Py_XDECREF(arguments);
    return begun;
}

/* _CallItem.__setstate__(call, state), where there is none unless somebody has patched one in */
static PyObject *
station_arrive(PyObject *self, PyObject *const *args, size_t flags, PyObject *keywords)
{
    Station *station = (Station *)self;
    if (PyVectorcall_NARGS(flags) != 2 || keywords != NULL || !PyDict_CheckExact(args[1])) {
        PyErr_SetString(PyExc_TypeError, "__setstate__() takes a dict");
        return NULL;
    }
    PyObject *state = args[1];
    PyObject *parcel = Py_XNewRef(PyDict_GetItemWithError(state, station->state->name_key));
    PyObject *result = NULL;
    if (parcel != NULL ? PyDict_DelItem(state, station->state->name_key) < 0 : PyErr_Occurred() != NULL) {
        Py_XDECREF(parcel);
        return NULL;
    }
    if (station->original != NULL) {
        result = call_original(station, args, flags, NULL);
    }
    else if (PyObject_SetAttr(args[0], station->state->name_dict, state) == 0) {
        result = Py_NewRef(Py_None);
    }
    if (result != NULL && station->is_on && begin_call(station, state, parcel) < 0) {
        Py_CLEAR(result);
    }
    Py_XDECREF(parcel);
    return result;
}

/* Hang two durations on a result; -1 with an exception: trouble. */
static int
end_call(Station *station, PyObject *item, PyObject *number)
{
    PyObject *failure = PyObject_GetAttr(item, station->state->name_failure);
    PyObject *error = NULL, *stacktrace = NULL;
    if (failure == NULL) {
        return -1;
    }
    if (failure != Py_None) { /* an _ExceptionWithTraceback */
        error = attribute_of(failure, station->state->name_exc);
        stacktrace = error != NULL ? attribute_of(failure, station->state->name_tb) : NULL;
    }
    PyObject *timing = PyErr_Occurred() ? NULL
                                        : crossing_end_item(station->crossing, number, error != NULL ? error : Py_None,
                                                            stacktrace != NULL ? stacktrace : Py_None);
    int hung = timing == NULL ? -1 : timing == Py_None ? 0 : PyObject_SetAttr(item, station->state->name_key, timing);
    Py_XDECREF(timing);
    Py_XDECREF(stacktrace);
    Py_XDECREF(error);
    Py_DECREF(failure);
    return hung;
}

/* _ResultItem.__init__(item, work_id, ...) */
static PyObject *
station_answer(PyObject *self, PyObject *const *args, size_t flags, PyObject *keywords)
{
    Station *station = (Station *)self;
    PyObject *result = call_original(station, args, flags, keywords);
    if (result != NULL && station->is_on && PyVectorcall_NARGS(flags) >= 2 && end_call(station, args[0], args[1]) < 0
        && crossing_fence(station->crossing->trouble) < 0) {
        Py_CLEAR(result);
    }
    return result;
}

/* _sendback_result(queue, work_id, ...) */
static PyObject *
station_send_back(PyObject *self, PyObject *const *args, size_t flags, PyObject *keywords)
{
    Station *station = (Station *)self;
    PyObject *result = call_original(station, args, flags, keywords);
    if (station->crossing->late == NULL) {
        return result;
    }
    PyObject *type = NULL, *error = NULL, *traceback = NULL;
    PyErr_Fetch(&type, &error, &traceback);
    if (crossing_finish_item(station->crossing) < 0) {
        Py_CLEAR(result);
        Py_XDECREF(type);
        Py_XDECREF(error);
        Py_XDECREF(traceback);
    }
    else if (result == NULL) {
        PyErr_Restore(type, error, traceback);
    }
    return result;
}

/* --- the type --- */

static PyObject *
station_turn_off(Station *station, PyObject *Py_UNUSED(ignored))
{
    station->is_on = 0;
    Py_RETURN_NONE;
}

/* It looks like its original, or as that would look; only what is its own comes from here. */
static PyObject *
station_getattro(PyObject *self, PyObject *name)
{
    static const char *looks[][2] = {
        {"__module__", "concurrent.futures.process"},
        {"__qualname__", "_CallItem.__setstate__"}, /* alone may have none */
        {"__name__", "__setstate__"},
        {"__doc__", ""},
    };
    PyObject *original = ((Station *)self)->original;
    for (size_t i = 0; PyUnicode_Check(name) && i < Py_ARRAY_LENGTH(looks); i++) {
        if (PyUnicode_CompareWithASCIIString(name, looks[i][0]) == 0) {
            return original != NULL ? PyObject_GetAttr(original, name) : PyUnicode_FromString(looks[i][1]);
        }
    }
    PyObject *own = PyObject_GenericGetAttr(self, name);
    if (own != NULL || original == NULL || !PyErr_ExceptionMatches(PyExc_AttributeError)) {
        return own;
    }
    PyErr_Clear();
    return PyObject_GetAttr(original, name);
}

static PyObject *
station_bind(PyObject *self, PyObject *instance, PyObject *Py_UNUSED(type))
{
    return instance == NULL || instance == Py_None ? Py_NewRef(self) : PyMethod_New(self, instance);
}

static int
station_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((Station *)self)->original);
    Py_VISIT(((Station *)self)->crossing);
    return 0;
}

/* No tp_clear: an original is a function, and takes itself apart. */
static void
station_dealloc(PyObject *self)
{
    Station *station = (Station *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_XDECREF(station->original);
    Py_DECREF(station->crossing);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

PyDoc_STRVAR(station_reduce_doc,
"__reduce__()\n--\n\n"
"Be found by name, as the original.");

static PyObject *
station_reduce(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyObject_GetAttrString(self, "__qualname__");
}

static PyMethodDef station_methods[] = {
    {"__reduce__", station_reduce, METH_NOARGS, station_reduce_doc},
    {"turn_off", (PyCFunction)station_turn_off, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef station_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Station, call), READONLY, NULL},
    {"__wrapped__", T_OBJECT_EX, offsetof(Station, original), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot station_slots[] = {
    {Py_tp_dealloc, station_dealloc},   {Py_tp_traverse, station_traverse}, {Py_tp_call, PyVectorcall_Call},
    {Py_tp_getattro, station_getattro}, {Py_tp_descr_get, station_bind},    {Py_tp_methods, station_methods},
    {Py_tp_members, station_members},   {0, NULL},
};

static PyType_Spec station_spec = {
    .name = "otel_concurrency.probes._native.Station",
    .basicsize = sizeof(Station),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR
#ifdef Py_TPFLAGS_DISALLOW_INSTANTIATION
             | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE
#endif
    ,
    .slots = station_slots,
};

/* A station, and what turns it off: as patches want it. */
static PyObject *
station_new(Crossing *crossing, PyObject *original, vectorcallfunc call)
{
    PyTypeObject *type = crossing->state->station_type;
    Station *station = type != NULL ? PyObject_GC_New(Station, type) : NULL;
    if (station == NULL) {
        return PyErr_Occurred() ? NULL : PyErr_NoMemory(); /* without a type: the module is being taken apart */
    }
    station->call = call;
    station->original = original != Py_None ? Py_NewRef(original) : NULL;
    station->crossing = (Crossing *)Py_NewRef((PyObject *)crossing);
    station->state = crossing->state;
    station->is_on = 1;
    PyObject_GC_Track(station);
    PyObject *turn_off = PyObject_GetAttrString((PyObject *)station, "turn_off");
    return turn_off != NULL ? Py_BuildValue("(NN)", station, turn_off) : (Py_DECREF(station), NULL);
}

#define STATION(name, doc)                                          \
    PyDoc_STRVAR(crossing_##name##_doc,                             \
    #name "(original, /)\n--\n\n"                                   \
    "Return what replaces " doc ", and what turns it off.");        \
    static PyObject *                                               \
    crossing_##name(Crossing *crossing, PyObject *original)         \
    {                                                               \
        return station_new(crossing, original, station_##name);     \
    }

STATION(unwrap, "`_CallItem.__init__`: the plain function leaves, with its parcel beside it")
STATION(take, "`_ExecutorManagerThread.process_result_item`: an item ends")
STATION(arrive, "`_CallItem.__setstate__`, or its absence: an item begins")
STATION(answer, "`_ResultItem.__init__`: an item has run")
STATION(send_back, "`_sendback_result`: its result is out")

#endif
