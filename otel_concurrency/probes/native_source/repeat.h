/* A signal that comes again until Python has heard it.

   CPython's handler only notes a signal. The main thread looks at the notes between two instructions, and when the signal
   has interrupted its system call. One that comes in between, while that thread is on its way into a wait, wakes nobody:
   the process lives on, which the default action would have ended. The gap is as wide as the wait for the GIL. One that
   the kernel gives to another thread does not wake the main thread either, and neither does a long call in C.

   So the handler here arms a timer before it calls CPython's: until somebody disarms it, the signal comes again, now to
   the main thread itself, and after so many times the default action is taken. Dispositions belong to the process, and so
   does what is kept here. In the handler there are system calls only. Linux has such timers; elsewhere this is not there. */

#ifndef OTEL_CONCURRENCY_REPEAT_H
#define OTEL_CONCURRENCY_REPEAT_H

#if defined(__linux__) && defined(__LP64__) /* where the kernel's own `timespec` is made of two `long` */
#define REPEAT_SIGNALS

#include <errno.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef SIGEV_THREAD_ID
#define SIGEV_THREAD_ID 4
#endif
#define REPEAT_SLOTS 2

/* The kernel's `sigevent`: C libraries differ in how they name the thread. */
typedef struct {
    union sigval value;
    int signum;
    int notify;
    int thread;
    char padding[44];
} RepeatEvent;

typedef struct {
    int signum; /* 0: free */
    void (*theirs)(int);
    pid_t pid; /* where `thread` is the main one; a child of a fork has one thread, which goes by its process id */
    pid_t thread;
    long interval_ns;
    int tries;
    volatile sig_atomic_t left;
    pid_t owner; /* the process that the timer belongs to: a fork leaves it behind; negative while it is being made */
    int timer;
} Repeat;

static Repeat repeats[REPEAT_SLOTS];

static Repeat *
repeat_of(int signum)
{
    for (int i = 0; i < REPEAT_SLOTS; i++) {
        if (repeats[i].signum == signum) {
            return &repeats[i];
        }
    }
    return NULL;
}

static int
repeat_has_timer(Repeat *repeat, pid_t pid)
{
    pid_t owner = __atomic_load_n(&repeat->owner, __ATOMIC_ACQUIRE);
    if (owner == pid) {
        return 1;
    }
    if (owner == -pid || !__atomic_compare_exchange_n(&repeat->owner, &owner, -pid, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
        return 0; /* another thread is here, for the same signal */
    }
    RepeatEvent event = {.signum = repeat->signum, .notify = SIGEV_THREAD_ID};
    event.thread = repeat->pid == pid ? repeat->thread : pid;
    if (syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &repeat->timer) < 0) {
        __atomic_store_n(&repeat->owner, 0, __ATOMIC_RELEASE);
        return 0;
    }
    repeat->left = repeat->tries; /* a child of a fork counts for itself */
    __atomic_store_n(&repeat->owner, pid, __ATOMIC_RELEASE);
    return 1;
}

static void
repeat_arm(Repeat *repeat, long ns)
{
    struct itimerspec when = {.it_value = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000}};
    syscall(SYS_timer_settime, repeat->timer, 0, &when, NULL);
}

static void
repeat_handler(int signum)
{
    int error = errno;
    Repeat *repeat = repeat_of(signum);
    pid_t pid = getpid();
    if (repeat->left > 0) {
        repeat->left--;
        if (repeat_has_timer(repeat, pid)) {
            repeat_arm(repeat, repeat->interval_ns); /* first: once it is noted, it may be heard at any moment */
        }
    }
    else if (pid != 1) { /* the kernel spares the first process of a container */
        signal(signum, SIG_DFL);
        raise(signum); /* comes when we return */
    }
    repeat->theirs(signum);
    errno = error;
}

PyDoc_STRVAR(repeat_signal_doc,
"repeat_signal(signum, tries, interval_ns, /)\n--\n\n"
"Let a signal, whose handler Python has just set in the main thread, come again until `signal_heard()`.\n\n"
"After `tries` times the default action ends the process. Returns whether that works here.");

static PyObject *
module_repeat_signal(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    int signum;
    int tries;
    long interval_ns;
    if (!PyArg_ParseTuple(arguments, "iil:repeat_signal", &signum, &tries, &interval_ns)) {
        return NULL;
    }
    struct sigaction action;
    Repeat *repeat = repeat_of(signum);
    if (repeat == NULL) {
        repeat = repeat_of(0);
    }
    if (repeat == NULL || sigaction(signum, NULL, &action) < 0 || action.sa_flags & SA_SIGINFO
        || action.sa_handler == SIG_DFL || action.sa_handler == SIG_IGN) {
        Py_RETURN_FALSE;
    }
    repeat->pid = getpid();
    repeat->thread = (pid_t)syscall(SYS_gettid);
    repeat->interval_ns = interval_ns;
    repeat->tries = tries;
    repeat->left = tries;
    if (action.sa_handler != repeat_handler) {
        repeat->theirs = action.sa_handler;
        repeat->signum = signum;
        action.sa_handler = repeat_handler;
        if (sigaction(signum, &action, NULL) < 0) {
            Py_RETURN_FALSE;
        }
    }
    Py_RETURN_TRUE;
}

PyDoc_STRVAR(signal_heard_doc,
"signal_heard(signum, /)\n--\n\n"
"Let a signal come no more, until it is sent again.");

static PyObject *
module_signal_heard(PyObject *Py_UNUSED(module), PyObject *argument)
{
    long signum = PyLong_AsLong(argument);
    if (signum == -1 && PyErr_Occurred()) {
        return NULL;
    }
    Repeat *repeat = signum > 0 ? repeat_of((int)signum) : NULL;
    if (repeat != NULL) {
        if (__atomic_load_n(&repeat->owner, __ATOMIC_ACQUIRE) == getpid()) {
            repeat_arm(repeat, 0);
        }
        repeat->left = repeat->tries;
    }
    Py_RETURN_NONE;
}
#endif

#endif
