/* The task probe's methods for waits: see waits.h. */

#ifndef OTEL_CONCURRENCY_WAIT_METHODS_H
#define OTEL_CONCURRENCY_WAIT_METHODS_H

PyDoc_STRVAR(wait_begins_doc,
"wait_begins(row, /)\n--\n\n"
"Say that the task whose step runs now is about to wait for something that counts in this row.\n\n"
"Returns whether its wait will be counted: False outside of any task's step.");

static PyObject *
probe_wait_begins(TaskProbe *probe, PyObject *argument)
{
    long row = PyLong_AsLong(argument);
    if (row == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (row < 0 || row >= MAX_WAIT_ROWS) {
        PyErr_Format(PyExc_ValueError, "a row is 0 to %d", MAX_WAIT_ROWS - 1);
        return NULL;
    }
    ThreadSlot *slot = thread_slot(probe->state);
    Step *step = slot != NULL ? slot->innermost : NULL;
    if (step == NULL || step->live->done || step->row->probe != probe) {
        Py_RETURN_FALSE;
    }
#ifdef WATCH_CONTEXTS
    if (creation_in_step(slot, slot->creation) != NULL) { /* who waits is not a task yet: an eager first step */
        Py_RETURN_FALSE;
    }
#endif
    wait_begin(probe, step->live, (int)row, step->began_ns, monotonic_ns(&probe->state->clock));
    Py_RETURN_TRUE;
}

PyDoc_STRVAR(read_waits_doc,
"read_waits()\n--\n\n"
"Return (row, contentions, tasks that wait now, ns waited, durations) of each row in which somebody waited.");

static PyObject *
probe_read_waits(TaskProbe *probe, PyObject *Py_UNUSED(ignored))
{
    PyObject *result = PyList_New(0);
    for (int i = 0; result != NULL && i < probe->wait_row_count; i++) {
        WaitRow seen = probe->wait_rows[i];
        if (seen.contentions == 0) {
            continue;
        }
        PyObject *durations = histogram_read(&seen.durations);
        PyObject *item = durations != NULL
                             ? Py_BuildValue("(iKLLN)", i, (unsigned long long)seen.contentions,
                                             (long long)seen.waiting, (long long)seen.wait_ns, durations)
                             : NULL;
        if (item == NULL || PyList_Append(result, item) < 0) {
            Py_CLEAR(result);
        }
        Py_XDECREF(item);
    }
    return result;
}

#endif
