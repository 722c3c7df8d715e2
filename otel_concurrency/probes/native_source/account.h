/* What the work of one request took: the twin of probes/account.py.

   Tasks that are created inside a request carry its account, and each of their steps adds to it. The task in which the
   request began is older than the account, so it carries none: its steps are led to the account by a table, for as long
   as the request is open, and a bit says that there is something to find. */

#ifndef OTEL_CONCURRENCY_ACCOUNT_H
#define OTEL_CONCURRENCY_ACCOUNT_H

#include "owners.h"

/* The account that a task's steps count for, or NULL. Borrowed. */
static inline Account *
live_account(Live *live)
{
    if (live->is_owner) {
        return owner_find(live->row->probe->state, live);
    }
    return live->has_told ? live_told(live)->account : NULL;
}

static void
account_add_busy(Account *account, int64_t ns)
{
    for (; account != NULL; account = account->outer) {
        if (account->is_open) {
            account->busy_ns += ns;
        }
    }
}

/* Whether a step held its loop for long, as far as it lies behind the request's begin. */
static int
is_slow(Account *account, int64_t began_ns, int64_t ended_ns, int64_t slow_ns)
{
    return ended_ns - (began_ns > account->began_ns ? began_ns : account->began_ns) >= slow_ns;
}

static NEVER_INLINE void
account_add_task(Account *account)
{
    for (; account != NULL; account = account->outer) {
        account->tasks += (uint64_t)account->is_open;
        account->sees_steps = 1;
    }
}

static NEVER_INLINE void
account_add_start(Account *account, int64_t delay_ns)
{
    for (; account != NULL; account = account->outer) {
        if (account->is_open) {
            account->start_delay_ns += delay_ns;
        }
    }
}

static NEVER_INLINE void
account_add_wait(Account *account, int what, int64_t ns)
{
    for (; account != NULL; account = account->outer) {
        if (account->is_open) {
            account->waited[what].times++;
            account->waited[what].ns += ns;
        }
    }
}

static void
account_wait_lock(Live *live, int64_t ns)
{
    account_add_wait(live_account(live), LOCK, ns);
}

/* A step of a task that somebody wants to hear of, or that began a request. `outer` is the step that it is nested in, as
   that of an eager task is: the time is not counted twice. */
static NEVER_INLINE void
account_step(Live *live, int64_t began_ns, int64_t ended_ns, Step *outer)
{
    int64_t busy_ns = ended_ns - began_ns;
    if (live->has_told) {
        live_told(live)->busy_ns += busy_ns;
    }
    for (Account *account = live_account(live); account != NULL; account = account->outer) {
        if (account->is_open) {
            account->busy_ns += busy_ns;
            account->slow_steps += (uint64_t)is_slow(account, began_ns, ended_ns, live->row->probe->slow_ns);
        }
    }
    if (outer != NULL) {
        account_add_busy(live_account(outer->live), -busy_ns);
    }
}

/* An attribute that may be missing, without the price of an AttributeError where it is. */
#if PY_VERSION_HEX >= 0x030D0000
#define optional_attribute PyObject_GetOptionalAttr
#else
#define optional_attribute _PyObject_LookupAttr
#endif

/* The open account of the span in a value of the origin variable; NULL: none. Borrowed from the span. */
static Account *
account_in(ModuleState *state, PyObject *key, PyObject *origin)
{
    if (key == NULL || origin == NULL || !PyDict_Check(origin)) {
        return NULL;
    }
    PyObject *account = NULL;
    PyObject *span = PyDict_GetItemWithError(origin, key);
    if (span != NULL) {
        if (PyObject_TypeCheck(span, state->stand_in_state_type)) {
            account = ((StandIn *)span)->account;
        }
        else {
            (void)optional_attribute(span, state->name_account, &account);
            Py_XDECREF(account); /* it stays in the span */
        }
    }
    PyErr_Clear();
    if (account == NULL || !Py_IS_TYPE(account, state->account_type) || !((Account *)account)->is_open) {
        return NULL;
    }
    return (Account *)account;
}

/* That of where we are. New, or NULL. */
static Account *
account_now(TaskProbe *probe)
{
    PyObject *current = NULL;
    if (probe->span_key == NULL || probe->origin_var == NULL
        || PyContextVar_Get(probe->origin_var, NULL, &current) < 0) {
        PyErr_Clear();
        return NULL;
    }
    Account *account = (Account *)Py_XNewRef((PyObject *)account_in(probe->state, probe->span_key, current));
    Py_XDECREF(current);
    return account;
}

#include "first_steps.h"

/* --- the type --- */

/* Hang a request on the step that runs now. */
static void
account_own(Account *account, Account *before)
{
    account->sees_steps = 1;
    if (before != NULL && before->is_open && before->depth < MAX_DISPLACED) {
        account->displaced = before;
        if (account->depth <= before->depth) {
            account->depth = (char)(before->depth + 1);
        }
    }
    else if (before != NULL) {
        before->own = NULL;
        Py_DECREF(before);
    }
}

PyDoc_STRVAR(account_begin_doc,
"begin(outer=None, /)\n--\n\n"
"Count the steps of the task that runs now, too, from now on; `outer` is the account of a request around.");

static PyObject *
account_begin(Account *account, PyObject *const *args, Py_ssize_t count)
{
    ModuleState *state = PyType_GetModuleState(Py_TYPE(account));
    if (count > 1 || account->is_open) {
        PyErr_SetString(PyExc_TypeError, "begin() takes an account at most, and only once");
        return NULL;
    }
    account->is_open = 1;
    account->began_ns = monotonic_ns(&state->clock);
    if (count == 1 && Py_IS_TYPE(args[0], state->account_type) && args[0] != (PyObject *)account
        && account->outer == NULL && ((Account *)args[0])->depth < MAX_DISPLACED) {
        account->outer = (Account *)Py_NewRef(args[0]);
        account->depth = (char)(account->outer->depth + 1);
    }
    ThreadSlot *slot = thread_slot(state);
    if (slot == NULL) {
        Py_RETURN_NONE;
    }
#ifdef WATCH_CONTEXTS
    Creation *creation = creation_in_step(slot, slot->creation);
    if (creation != NULL) {
        account->busy_ns -= account->began_ns - creation->began_ns - creation->nested_ns;
        account_own(account, creation->owner);
        creation->owner = (Account *)Py_NewRef((PyObject *)account);
        Py_RETURN_NONE;
    }
#endif
    Step *step = slot->innermost;
    if (step == NULL || step->live->done) {
        Py_RETURN_NONE;
    }
    Live *live = step->live;
    Account *before = live->is_owner ? owner_take(state, live) : NULL;
    account->own = live;
    if (owner_add(state, account) < 0) {
        account->own = NULL;
        Py_XDECREF(before);
        Py_RETURN_NONE;
    }
    account->busy_ns -= account->began_ns - step->began_ns; /* the whole step will be added */
    account_own(account, before);
    Py_RETURN_NONE;
}

static int
account_includes(Account *account, Account *wanted)
{
    while (account != NULL && account != wanted) {
        account = account->outer;
    }
    return account != NULL;
}

/* Let the task in which it began count for whom it did before. */
static void
account_give_back(ModuleState *state, Account *account)
{
    Live *live = account->own;
    if (live == NULL || owner_find(state, live) != account) {
        return; /* a later one is in its place, and passes it over when it ends */
    }
    Account *held = owner_take(state, live);
    Account *next = account->displaced;
    while (next != NULL && !next->is_open) {
        next->own = NULL;
        next = next->displaced;
    }
    if (next != NULL && owner_add(state, next) < 0) {
        next->own = NULL;
    }
    account->own = NULL;
    Py_DECREF(held);
}

PyDoc_STRVAR(account_end_doc,
"end()\n--\n\n"
"Count up to now, and nothing any more.");

static PyObject *
account_end(Account *account, PyObject *Py_UNUSED(ignored))
{
    ModuleState *state = PyType_GetModuleState(Py_TYPE(account));
    if (!account->is_open) {
        Py_RETURN_NONE;
    }
    int64_t now_ns = monotonic_ns(&state->clock);
    int64_t until_ns = now_ns;
    ThreadSlot *slot = thread_slot(state);
#ifdef WATCH_CONTEXTS
    Creation *creation = slot != NULL ? slot->creation : NULL;
    while ((creation = creation_in_step(slot, creation)) != NULL) {
        if (account_includes(creation_account(creation), account)) {
            account->busy_ns += until_ns - creation->began_ns - creation->nested_ns;
            account->slow_steps += (uint64_t)is_slow(account, creation->began_ns, now_ns, creation->slow_ns);
        }
        until_ns = creation->began_ns;
        creation = creation->outer;
    }
#endif
    for (Step *step = slot != NULL ? slot->innermost : NULL; step != NULL; step = step->outer) {
        if (account_includes(live_account(step->live), account)) {
            account->busy_ns += until_ns - step->began_ns;
            account->slow_steps += (uint64_t)is_slow(account, step->began_ns, now_ns, step->row->probe->slow_ns);
        }
        until_ns = step->began_ns;
    }
    account->is_open = 0;
#ifdef WATCH_CONTEXTS
    creation = slot != NULL ? slot->creation : NULL;
    while ((creation = creation_in_step(slot, creation)) != NULL) {
        creation_give_back(creation, account);
        creation = creation->outer;
    }
#endif
    account_give_back(state, account);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(account_task_doc,
"add_task()\n--\n\n"
"Count a task whose steps nobody sees.");

static PyObject *
account_count_task(Account *account, PyObject *Py_UNUSED(ignored))
{
    for (; account != NULL; account = account->outer) {
        account->tasks += (uint64_t)account->is_open;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(account_wait_doc,
"add_wait(what, ns, /)\n--\n\n"
"Count a wait, for what an index of `WAITED_FOR` says.");

static PyObject *
account_count_wait(Account *account, PyObject *const *args, Py_ssize_t count)
{
    if (count != 2) {
        PyErr_Format(PyExc_TypeError, "add_wait() takes what was waited for, and how long; %zd given", count);
        return NULL;
    }
    long what = PyLong_AsLong(args[0]);
    long long ns = PyLong_AsLongLong(args[1]);
    if (PyErr_Occurred()) {
        return NULL;
    }
    if (what < 0 || what >= WAITED_FOR) {
        PyErr_Format(PyExc_ValueError, "what is waited for is 0 to %d", WAITED_FOR - 1);
        return NULL;
    }
    account_add_wait(account, (int)what, ns);
    Py_RETURN_NONE;
}

static PyObject *
account_read(Account *account, PyObject *Py_UNUSED(ignored))
{
    PyObject *waited = PyTuple_New(WAITED_FOR);
    for (int what = 0; waited != NULL && what < WAITED_FOR; what++) {
        Waited *each = &account->waited[what];
        PyObject *pair = Py_BuildValue("(KL)", (unsigned long long)each->times, (long long)each->ns);
        if (pair == NULL) {
            Py_CLEAR(waited);
            break;
        }
        PyTuple_SET_ITEM(waited, what, pair);
    }
    if (waited == NULL) {
        return NULL;
    }
    if (!account->sees_steps) {
        return Py_BuildValue("(KOOKN)", (unsigned long long)account->tasks, Py_None, Py_None,
                             (unsigned long long)account->slow_steps, waited);
    }
    return Py_BuildValue("(KLLKN)", (unsigned long long)account->tasks,
                         (long long)(account->busy_ns > 0 ? account->busy_ns : 0), (long long)account->start_delay_ns,
                         (unsigned long long)account->slow_steps, waited);
}

PyDoc_STRVAR(account_read_doc,
"read()\n--\n\n"
"Return the numbers, as `AccountRead` has them.");

static PyObject *
account_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    return type->tp_alloc(type, 0); /* all zero */
}

/* What it refers to never refers back, so no collector needs to know. */
static void
account_dealloc(PyObject *self)
{
    Account *account = (Account *)self;
    PyTypeObject *type = Py_TYPE(self);
    Py_XDECREF(account->outer);
    Py_XDECREF(account->displaced);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef account_methods[] = {
    {"begin", (PyCFunction)(void (*)(void))account_begin, METH_FASTCALL, account_begin_doc},
    {"end", (PyCFunction)account_end, METH_NOARGS, account_end_doc},
    {"add_task", (PyCFunction)account_count_task, METH_NOARGS, account_task_doc},
    {"add_wait", (PyCFunction)(void (*)(void))account_count_wait, METH_FASTCALL, account_wait_doc},
    {"read", (PyCFunction)account_read, METH_NOARGS, account_read_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot account_slots[] = {
    {Py_tp_new, account_new},
    {Py_tp_dealloc, account_dealloc},
    {Py_tp_methods, account_methods},
    {Py_tp_doc, (void *)"Account()\n--\n\nWhat the work of one request took."},
    {0, NULL},
};

static PyType_Spec account_spec = {
    .name = "otel_concurrency.probes._native.Account",
    .basicsize = sizeof(Account),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = account_slots,
};

#endif
