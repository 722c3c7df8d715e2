/* What stands for the span of a task until its end; what it means is told by signals/stand_in.py, which derives from it.
   It is here because most are made and let go of with nobody having asked: without a line of Python. The pure twin is in
   probes/stand_in.py. */

#ifndef OTEL_CONCURRENCY_STAND_IN_H
#define OTEL_CONCURRENCY_STAND_IN_H

#define ACCOUNT_ATTRIBUTE "_otel_concurrency_account" /* of spans, too */

typedef struct {
    PyObject_HEAD
    PyObject *maker;
    PyObject *real;
    PyObject *around;
    PyObject *created_in; /* NULL after the end of the task */
    PyObject *code;
    PyObject *function;
    PyObject *settled; /* NULL: open; None: nobody took the ids, and now nobody will */
    PyObject *continued; /* the span in which the task goes on in a trace of its own, or NULL */
    PyObject *account; /* of the request that the task is part of, or NULL */
    long long start_unix_ns;
    long long asked_unix_ns; /* when the ids were last taken after the end of `real` */
} StandIn;

static int
stand_in_traverse(PyObject *self, visitproc visit, void *arg)
{
    StandIn *stand_in = (StandIn *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(stand_in->maker);
    Py_VISIT(stand_in->real);
    Py_VISIT(stand_in->around);
    Py_VISIT(stand_in->created_in);
    Py_VISIT(stand_in->code);
    Py_VISIT(stand_in->function);
    Py_VISIT(stand_in->settled);
    Py_VISIT(stand_in->continued);
    Py_VISIT(stand_in->account);
    return 0;
}

static int
stand_in_clear(PyObject *self)
{
    StandIn *stand_in = (StandIn *)self;
    Py_CLEAR(stand_in->maker);
    Py_CLEAR(stand_in->real);
    Py_CLEAR(stand_in->around);
    Py_CLEAR(stand_in->created_in);
    Py_CLEAR(stand_in->code);
    Py_CLEAR(stand_in->function);
    Py_CLEAR(stand_in->settled);
    Py_CLEAR(stand_in->continued);
    Py_CLEAR(stand_in->account);
    return 0;
}

static void
stand_in_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_TRASHCAN_BEGIN(self, stand_in_dealloc)
    stand_in_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
    Py_TRASHCAN_END
}

static PyObject *
stand_in_get_settled(PyObject *self, void *Py_UNUSED(closure))
{
    PyObject *settled = ((StandIn *)self)->settled;
    return Py_NewRef(settled != NULL ? settled : Py_False);
}

static PyObject *
stand_in_settle(PyObject *self, PyObject *ids)
{
    StandIn *stand_in = (StandIn *)self;
    if (stand_in->settled == NULL) {
        stand_in->settled = Py_NewRef(ids);
    }
    return Py_NewRef(stand_in->settled);
}

static PyMethodDef stand_in_methods[] = {
    {"_settle", stand_in_settle, METH_O, "Set what became of the ids, once; return what became of them."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef stand_in_getset[] = {
    {"_settled", stand_in_get_settled, NULL, "What became of the ids: False while that is open.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef stand_in_members[] = {
    {"_maker", T_OBJECT, offsetof(StandIn, maker), 0, NULL},
    {"_real", T_OBJECT, offsetof(StandIn, real), 0, NULL},
    {"_around", T_OBJECT, offsetof(StandIn, around), 0, NULL},
    {"_created_in", T_OBJECT, offsetof(StandIn, created_in), 0, NULL},
    {"_code", T_OBJECT, offsetof(StandIn, code), 0, NULL},
    {"_function", T_OBJECT, offsetof(StandIn, function), 0, NULL},
    {"_continued", T_OBJECT, offsetof(StandIn, continued), 0, NULL},
    {ACCOUNT_ATTRIBUTE, T_OBJECT, offsetof(StandIn, account), 0, NULL},
    {"_start_unix_ns", T_LONGLONG, offsetof(StandIn, start_unix_ns), 0, NULL},
    {"_asked_unix_ns", T_LONGLONG, offsetof(StandIn, asked_unix_ns), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot stand_in_slots[] = {
    {Py_tp_traverse, stand_in_traverse}, {Py_tp_clear, stand_in_clear},     {Py_tp_dealloc, stand_in_dealloc},
    {Py_tp_methods, stand_in_methods},   {Py_tp_members, stand_in_members}, {Py_tp_getset, stand_in_getset},
    {0, NULL},
};

static PyType_Spec stand_in_spec = {
    .name = "otel_concurrency.probes._native.StandInState",
    .basicsize = sizeof(StandIn),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = stand_in_slots,
};

#endif
