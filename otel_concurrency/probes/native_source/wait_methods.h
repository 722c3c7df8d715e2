/* The task probe's methods for waits: see waits.h. */

#ifndef OTEL_CONCURRENCY_WAIT_METHODS_H
#define OTEL_CONCURRENCY_WAIT_METHODS_H

PyDoc_STRVAR(wait_begins_doc,
"wait_begins(kind, /)\n--\n\n"
"Say that the task whose step runs now is about to wait for something of this kind, an index of `read_waits()`.\n\n"
"Returns whether its wait will be counted: False outside of any task's step.");

static PyObject *
probe_wait_begins(TaskProbe *probe, PyObject *argument)
{
    long kind = PyLong_AsLong(argument);
    if (kind == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (kind < 0 || kind >= MAX_WAIT_KINDS) {
        PyErr_Format(PyExc_ValueError, "a kind is 0 to %d", MAX_WAIT_KINDS - 1);
        return NULL;
    }
    ThreadSlot *slot = thread_slot(probe->state);
    Step *step = slot != NULL ? slot->innermost : NULL;
    if (step == NULL || step->live->done || step->row->probe != probe) {
        Py_RETURN_FALSE;
    }
    wait_begin(probe, step->live, (int)kind, monotonic_ns(&probe->state->clock));
    Py_RETURN_TRUE;
}

PyDoc_STRVAR(read_waits_doc,
"read_waits()\n--\n\n"
"Return (contentions, tasks that wait now, ns waited, durations) of each kind.");

static PyObject *
probe_read_waits(TaskProbe *probe, PyObject *Py_UNUSED(ignored))
{
    PyObject *result = PyList_New(0);
    for (int i = 0; result != NULL && i < MAX_WAIT_KINDS; i++) {
        WaitRow *row = &probe->wait_rows[i];
        PyObject *durations = histogram_read(&row->durations);
        PyObject *item = durations != NULL ? Py_BuildValue("(KLLN)", (unsigned long long)row->contentions,
                                                           (long long)row->waiting, (long long)row->wait_ns, durations)
                                           : NULL;
        if (item == NULL || PyList_Append(result, item) < 0) {
            Py_CLEAR(result);
        }
        Py_XDECREF(item);
    }
    return result;
}

#endif
