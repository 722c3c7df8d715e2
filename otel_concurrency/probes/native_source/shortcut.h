/* `create_task` without a frame of ours in between.

   What stands in a loop class is a plain Python function, whose closure is (create, original). It stays one, for whoever
   looks at it, and for every call that is not plain; a call with a coroutine alone goes from the interpreter to the probe. */

#ifndef OTEL_CONCURRENCY_SHORTCUT_H
#define OTEL_CONCURRENCY_SHORTCUT_H

/* On 3.10 a frame is 0.08 µs. Later interpreters enter a Python function without a call, and 3.11 goes there anyway. */
#if PY_VERSION_HEX < 0x030B0000
#define SHORTCUT
#endif

#ifdef SHORTCUT
static PyObject *probe_create_task(TaskProbe *probe, PyObject *const *arguments, Py_ssize_t count, PyObject *keywords);

static vectorcallfunc call_python_function; /* the interpreter's own, the same for all functions */

static PyObject *
call_create_task(PyObject *function, PyObject *const *arguments, size_t flags, PyObject *keywords)
{
    PyObject *closure = PyFunction_GET_CLOSURE(function);
    PyObject *create = PyCell_GET(PyTuple_GET_ITEM(closure, 0));
    PyObject *original = PyCell_GET(PyTuple_GET_ITEM(closure, 1));
    if (PyVectorcall_NARGS(flags) != 2 || (keywords != NULL && PyTuple_GET_SIZE(keywords) != 0) || create == NULL
        || original == NULL || !PyCFunction_Check(create)
        || PyCFunction_GET_FUNCTION(create) != (PyCFunction)(void (*)(void))probe_create_task) {
        return call_python_function(function, arguments, flags, keywords);
    }
    PyObject *probe = Py_NewRef(PyCFunction_GET_SELF(create));
    Py_INCREF(original);
    PyObject *call[] = {original, arguments[0], arguments[1]};
    PyObject *task = probe_create_task((TaskProbe *)probe, call, 3, NULL);
    Py_DECREF(original);
    Py_DECREF(probe);
    return task;
}
#endif

PyDoc_STRVAR(shortcut_doc,
"shortcut(function, /)\n--\n\n"
"Let plain calls of a function with the closure (create, original) go straight to `create`, where that is\n"
"`TaskProbe.create_task`. Returns whether this interpreter can do so.\n\n"
"Raises:\n"
"    TypeError: It is no such function.");

static PyObject *
module_shortcut(PyObject *Py_UNUSED(module), PyObject *function)
{
    PyObject *closure = PyFunction_Check(function) ? PyFunction_GET_CLOSURE(function) : NULL;
    if (closure == NULL || PyTuple_GET_SIZE(closure) != 2 || PyCell_GET(PyTuple_GET_ITEM(closure, 1)) == NULL) {
        PyErr_SetString(PyExc_TypeError, "shortcut() takes a function with the closure (create, original)");
        return NULL;
    }
#ifdef SHORTCUT
    PyFunctionObject *changed = (PyFunctionObject *)function;
    if (changed->vectorcall != call_create_task) {
        call_python_function = changed->vectorcall;
        changed->vectorcall = call_create_task;
    }
    Py_RETURN_TRUE;
#else
    Py_RETURN_FALSE;
#endif
}

#endif
