/* Which account the steps of a task add to in which a request began: open addressing by task, linear probing, deletion by
   shifting back. */

#ifndef OTEL_CONCURRENCY_OWNERS_H
#define OTEL_CONCURRENCY_OWNERS_H

/* What a request waits for: an index of WAITED_FOR in probes/account.py. */
enum { EXECUTOR, LOCK, DB_POOL, HTTP_POOL, WAITED_FOR };

typedef struct Waited {
    uint64_t times;
    int64_t ns;
} Waited;

typedef struct Account {
    PyObject_HEAD
    struct Account *outer;     /* that of a request around this one, in this process; adds up, too */
    struct Account *displaced; /* what the task in which it began counted for until then */
    Live *own;                 /* that task; NULL: none, or it is over. The key in the table of owners */
    int64_t began_ns;
    int64_t busy_ns;
    int64_t start_delay_ns;
    uint64_t tasks;
    uint64_t slow_steps;
    Waited waited[WAITED_FOR];
    char is_open;
    char sees_steps;
    char depth; /* of what it displaced */
} Account;

#define MAX_DISPLACED 8

static inline size_t
owner_home(ModuleState *state, Live *live)
{
    return pointer_hash(live) & state->owner_mask;
}

static Account *
owner_find(ModuleState *state, Live *live)
{
    if (state->owners == NULL) {
        return NULL;
    }
    Account *account;
    size_t place = owner_home(state, live);
    while ((account = state->owners[place]) != NULL && account->own != live) {
        place = (place + 1) & state->owner_mask;
    }
    return account;
}

static void
owner_place(ModuleState *state, Account *account)
{
    size_t place = owner_home(state, account->own);
    while (state->owners[place] != NULL) {
        place = (place + 1) & state->owner_mask;
    }
    state->owners[place] = account;
}

/* Lead the steps of `account->own`, which has no place yet, to the account. -1 without memory. */
static int
owner_add(ModuleState *state, Account *account)
{
    if (state->owners == NULL || state->owner_count * 2 > state->owner_mask) {
        size_t before_size = state->owners != NULL ? state->owner_mask + 1 : 0;
        size_t size = before_size != 0 ? before_size * 2 : 64;
        Account **before = state->owners;
        Account **owners = PyMem_Calloc(size, sizeof(Account *));
        if (owners == NULL) {
            return -1;
        }
        state->owners = owners;
        state->owner_mask = size - 1;
        for (size_t i = 0; i < before_size; i++) {
            if (before[i] != NULL) {
                owner_place(state, before[i]);
            }
        }
        PyMem_Free(before);
    }
    owner_place(state, (Account *)Py_NewRef((PyObject *)account));
    state->owner_count++;
    account->own->is_owner = 1;
    return 0;
}

/* Take a task's place away. Returns the table's reference to the account, NULL if there was none. */
static Account *
owner_take(ModuleState *state, Live *live)
{
    Account *account = owner_find(state, live);
    if (account == NULL) {
        return NULL;
    }
    size_t hole = owner_home(state, live);
    while (state->owners[hole] != account) {
        hole = (hole + 1) & state->owner_mask;
    }
    for (size_t next = (hole + 1) & state->owner_mask; state->owners[next] != NULL;
         next = (next + 1) & state->owner_mask) {
        size_t home = owner_home(state, state->owners[next]->own);
        if (((next - home) & state->owner_mask) >= ((next - hole) & state->owner_mask)) {
            state->owners[hole] = state->owners[next];
            hole = next;
        }
    }
    state->owners[hole] = NULL;
    state->owner_count--;
    live->is_owner = 0;
    return account;
}

/* The task is over, whatever request it has begun. */
static NEVER_INLINE void
owner_leave(Live *live)
{
    Account *account = owner_take(live->row->probe->state, live);
    for (Account *each = account; each != NULL; each = each->displaced) {
        each->own = NULL;
    }
    Py_XDECREF(account);
}

static void
owners_free_all(ModuleState *state)
{
    for (size_t i = 0; state->owners != NULL && i <= state->owner_mask; i++) {
        Py_CLEAR(state->owners[i]);
    }
    PyMem_Free(state->owners);
    state->owners = NULL;
    state->owner_mask = state->owner_count = 0;
}

#endif
