/* The first steps of eager tasks under CPython 3.14 and later, as accounts see them: they lie inside the creation of their
   task, and nobody knows it yet. */

#ifndef OTEL_CONCURRENCY_FIRST_STEPS_H
#define OTEL_CONCURRENCY_FIRST_STEPS_H

#ifdef WATCH_CONTEXTS
/* This creation, if we are in the first step of its task, and in no other step inside that. */
static Creation *
creation_in_step(ThreadSlot *slot, Creation *creation)
{
    if (slot == NULL || creation == NULL || creation->began_ns == 0 || creation->ended_ns != 0
        || (slot->innermost != NULL && slot->innermost->began_ns >= creation->began_ns)) {
        return NULL;
    }
    return creation;
}

/* A request ends in the step that it began in. */
static void
creation_give_back(Creation *creation, Account *account)
{
    if (creation->owner != account) {
        return;
    }
    while (creation->owner != NULL && !creation->owner->is_open) {
        Py_XSETREF(creation->owner, (Account *)Py_XNewRef((PyObject *)creation->owner->displaced));
    }
}

static Account *
creation_account(Creation *creation)
{
    return creation->owner != NULL ? creation->owner : creation->told;
}

/* A task is known whose first step is over: it owns what began in that, and the time counts once. */
static void
creation_leave(ThreadSlot *slot, Creation *creation, Live *live, int64_t ended_ns)
{
    Account *owner = creation->owner;
    creation->owner = NULL;
    if (owner != NULL) {
        owner->own = live;
        int failed = owner_add(slot->state, owner) < 0;
        for (Account *each = owner; each != NULL; each = each->displaced) {
            each->own = failed ? NULL : live;
        }
        Py_DECREF(owner);
    }
    if (!(live->has_told | live->is_owner)) {
        return;
    }
    account_add_busy(live_account(live), -creation->nested_ns);
    int64_t busy_ns = ended_ns - creation->began_ns;
    Creation *outer = creation_in_step(slot, creation->outer);
    if (outer != NULL) {
        outer->nested_ns += busy_ns;
    }
    else if (slot->innermost != NULL) {
        account_add_busy(live_account(slot->innermost->live), -busy_ns);
    }
}
#endif

#endif
