/* A thread of which the program does not get to know: `_thread` counts those that it has started, and `threading` lists them.
   Both are how programs, and the tests of CPython, tell whether they left a thread behind. See probes/quiet_thread.py. */

#ifndef OTEL_CONCURRENCY_QUIET_THREAD_H
#define OTEL_CONCURRENCY_QUIET_THREAD_H

static void
quiet_thread_run(void *argument)
{
    PyGILState_STATE gil = PyGILState_Ensure();
    PyObject *target = argument;
    PyObject *result = PyObject_CallNoArgs(target);
    if (result == NULL) {
        PyErr_WriteUnraisable(target);
    }
    Py_XDECREF(result);
    Py_DECREF(target);
    PyGILState_Release(gil);
}

PyDoc_STRVAR(start_quiet_thread_doc,
"start_quiet_thread(target, /)\n--\n\n"
"Call `target` in a thread of its own that neither `threading` nor `_thread` knows of; only in the main interpreter.\n\n"
"Raises:\n"
"    RuntimeError: The operating system has none to give.");

static PyObject *
module_start_quiet_thread(PyObject *Py_UNUSED(module), PyObject *target)
{
    if (PyThread_start_new_thread(quiet_thread_run, Py_NewRef(target)) == PYTHREAD_INVALID_THREAD_ID) {
        Py_DECREF(target);
        PyErr_SetString(PyExc_RuntimeError, "can't start new thread");
        return NULL;
    }
    Py_RETURN_NONE;
}

#endif
