/* How the next item with an equal carrier begins, without the observer: see `Again` in probes/crossing.py.

   A worker often runs many items of one submitter, one after the other; a call of Python before each is felt in its round
   trip, so for all but the first two what the observer would do is done here. The pure twin has none of this. */

#ifndef OTEL_CONCURRENCY_AGAIN_H
#define OTEL_CONCURRENCY_AGAIN_H

enum {
    AGAIN_CARRIER,
    AGAIN_UNCHANGED,
    AGAIN_CONTEXT,
    AGAIN_KEY,
    AGAIN_CLASS,
    AGAIN_ATTRIBUTES,
    AGAIN_SIZE
};

/* Whether this is one, as deep as the rest of this file leans on it. */
static int
again_check(PyObject *again)
{
    if (!PyTuple_Check(again) || PyTuple_GET_SIZE(again) != AGAIN_SIZE
        || !PyDict_CheckExact(PyTuple_GET_ITEM(again, AGAIN_CARRIER))
        || !PyTuple_CheckExact(PyTuple_GET_ITEM(again, AGAIN_UNCHANGED))
        || !PyDict_Check(PyTuple_GET_ITEM(again, AGAIN_CONTEXT)) || !PyType_Check(PyTuple_GET_ITEM(again, AGAIN_CLASS))
        || !PyDict_CheckExact(PyTuple_GET_ITEM(again, AGAIN_ATTRIBUTES))) {
        return 0;
    }
    PyObject *unchanged = PyTuple_GET_ITEM(again, AGAIN_UNCHANGED);
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(unchanged); i++) {
        PyObject *place = PyTuple_GET_ITEM(unchanged, i);
        if (!PyTuple_CheckExact(place) || PyTuple_GET_SIZE(place) != 3 || !PyDict_CheckExact(PyTuple_GET_ITEM(place, 0))) {
            return 0;
        }
    }
    return 1;
}

/* Whether it still says what the observer would. -1: trouble. */
static int
again_holds(PyObject *again, PyObject *carrier)
{
    PyObject *unchanged = PyTuple_GET_ITEM(again, AGAIN_UNCHANGED);
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(unchanged); i++) {
        PyObject *place = PyTuple_GET_ITEM(unchanged, i);
        PyObject *value = PyDict_GetItemWithError(PyTuple_GET_ITEM(place, 0), PyTuple_GET_ITEM(place, 1));
        if (value != PyTuple_GET_ITEM(place, 2)) {
            return PyErr_Occurred() ? -1 : 0;
        }
    }
    return PyObject_RichCompareBool(PyTuple_GET_ITEM(again, AGAIN_CARRIER), carrier, Py_EQ);
}

/* A new instance of its class that knows its item; no constructor runs. */
static PyObject *
again_instance(PyObject *again, PyObject *name_item, PyObject *item)
{
    PyTypeObject *type = (PyTypeObject *)PyTuple_GET_ITEM(again, AGAIN_CLASS);
    PyObject *nothing = PyTuple_New(0);
    PyObject *instance = nothing != NULL ? type->tp_new(type, nothing, NULL) : NULL;
    Py_XDECREF(nothing);
    int set = instance != NULL ? PyObject_SetAttr(instance, name_item, item) : -1;
    PyObject *name, *value;
    Py_ssize_t position = 0;
    while (set == 0 && PyDict_Next(PyTuple_GET_ITEM(again, AGAIN_ATTRIBUTES), &position, &name, &value)) {
        set = PyObject_SetAttr(instance, name, value);
    }
    if (set < 0) {
        Py_CLEAR(instance);
    }
    return instance;
}

/* Make a copy of the context with that instance current; returns what ends the item, or NULL: trouble. */
static PyObject *
again_begin(PyObject *again, PyObject *variable, PyObject *name_item, PyObject *item)
{
    PyObject *context = PyTuple_GET_ITEM(again, AGAIN_CONTEXT);
    PyObject *instance = again_instance(again, name_item, item);
    PyObject *inside = instance != NULL ? PyObject_CallOneArg((PyObject *)Py_TYPE(context), context) : NULL;
    PyObject *end = inside != NULL ? PyTuple_New(2) : NULL;
    PyObject *token = NULL;
    if (end != NULL && PyDict_SetItem(inside, PyTuple_GET_ITEM(again, AGAIN_KEY), instance) == 0) {
        token = PyContextVar_Set(variable, inside);
    }
    Py_XDECREF(inside);
    if (token == NULL) {
        Py_XDECREF(end);
        Py_XDECREF(instance);
        return NULL;
    }
    PyTuple_SET_ITEM(end, 0, token);
    PyTuple_SET_ITEM(end, 1, instance);
    return end;
}

#endif
