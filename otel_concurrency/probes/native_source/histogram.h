/* Base-2 exponential histograms of nanoseconds: the twin of probes/histogram.py, same table, same buckets.

   Observing allocates once per histogram and never fails: without memory the value still counts in count and sum. */

#ifndef OTEL_CONCURRENCY_HISTOGRAM_H
#define OTEL_CONCURRENCY_HISTOGRAM_H

#define BUCKETS_PER_OCTAVE 8
#define LOWEST_EXPONENT (-30)
#define HIGHEST_EXPONENT 16
#define BUCKET_COUNT ((HIGHEST_EXPONENT - LOWEST_EXPONENT) * BUCKETS_PER_OCTAVE)
#define EXEMPLARS_PER_HISTOGRAM 4
/* Steps whose exemplar is let go after one found nothing current: looking costs more than counting. */
#define STEPS_AT_REST 16

typedef struct {
    PyObject *origin;
    int64_t value_ns;
    int64_t at_unix_ns;
    int position;
} Exemplar;

typedef struct {
    uint64_t count;
    uint64_t zero_count;
    int64_t sum_ns;
    int64_t min_ns;
    int64_t max_ns;
    uint64_t *buckets; /* NULL until something is observed */
    int exemplar_count;
    int exemplar_rest;
    Exemplar exemplars[EXEMPLARS_PER_HISTOGRAM];
} Histogram;

/* Slices of an octave, all equally wide: 1/16 of its least value, where the narrowest bucket is 0.09 of it. So a slice
   holds values of at most two buckets. Below 32 ns a slice is one value. */
#define SLICE_BITS 4
#define SLICES_PER_OCTAVE (1 << SLICE_BITS)

typedef struct {
    int64_t upper_ns[BUCKET_COUNT]; /* the last one without a bound */
    short first_of_slice[64 * SLICES_PER_OCTAVE];
} BucketTable;

/* 2 ** (k / 8), the doubles that probes/histogram.py starts from. */
static const double MANTISSAS[BUCKETS_PER_OCTAVE] = {
    1.0, 1.0905077326652577, 1.189207115002721, 1.2968395546510096,
    1.4142135623730951, 1.5422108254079407, 1.681792830507429, 1.8340080864093424,
};

static void
bucket_table_init(BucketTable *table)
{
    int position = 0;
    for (int i = 0; i < BUCKET_COUNT - 1; i++) {
        int upper = i + 1;
        double bound = ldexp(MANTISSAS[upper % BUCKETS_PER_OCTAVE],
                             LOWEST_EXPONENT + upper / BUCKETS_PER_OCTAVE);
        table->upper_ns[i] = (int64_t)floor(bound * 1e9);
    }
    table->upper_ns[BUCKET_COUNT - 1] = INT64_MAX;
    for (int bit = 0; bit < 63; bit++) {
        for (uint64_t slice = 0; slice < SLICES_PER_OCTAVE; slice++) {
            uint64_t parts = SLICES_PER_OCTAVE + slice;
            int64_t least = (int64_t)(bit < SLICE_BITS ? parts >> (SLICE_BITS - bit) : parts << (bit - SLICE_BITS));
            while (table->upper_ns[position] < least) {
                position++;
            }
            table->first_of_slice[bit * SLICES_PER_OCTAVE + slice] = (short)position;
        }
    }
}

static inline int
highest_bit(uint64_t value)
{
#if defined(__GNUC__) || defined(__clang__)
    return 63 - __builtin_clzll(value);
#else
    int bit = 0;
    while (value >>= 1) {
        bit++;
    }
    return bit;
#endif
}

/* The bucket of a duration of at least 1 ns. */
static inline int
bucket_position(const BucketTable *table, int64_t ns)
{
    int bit = highest_bit((uint64_t)ns);
    uint64_t slice = ((uint64_t)ns << (63 - bit) >> (63 - SLICE_BITS)) & (SLICES_PER_OCTAVE - 1);
    int position = table->first_of_slice[bit * SLICES_PER_OCTAVE + (int)slice];
    return position + (table->upper_ns[position] < ns); /* no branch to guess wrong */
}

static NEVER_INLINE int
histogram_make_buckets(Histogram *histogram)
{
    histogram->buckets = PyMem_Calloc(BUCKET_COUNT, sizeof(uint64_t));
    return histogram->buckets != NULL;
}

/* The bucket if a value in it would become its exemplar, -1 if not. */
static NEVER_INLINE int
histogram_exemplar_position(const Histogram *histogram, int position, int64_t ns)
{
    int fastest = BUCKET_COUNT;
    for (int i = 0; i < histogram->exemplar_count; i++) {
        const Exemplar *held = &histogram->exemplars[i];
        if (held->position == position) {
            return ns > held->value_ns ? position : -1;
        }
        if (held->position < fastest) {
            fastest = held->position;
        }
    }
    if (histogram->exemplar_count == EXEMPLARS_PER_HISTOGRAM && position < fastest) {
        return -1;
    }
    return position;
}

/* Count one value. Returns the bucket if its exemplar would change, -1 if not. */
static ALWAYS_INLINE int
histogram_observe(Histogram *histogram, const BucketTable *table, int64_t ns)
{
    if (ns < 0) {
        ns = 0;
    }
    if (histogram->count == 0 || ns < histogram->min_ns) {
        histogram->min_ns = ns;
    }
    if (ns > histogram->max_ns) {
        histogram->max_ns = ns;
    }
    histogram->count++;
    histogram->sum_ns += ns;
    if (ns == 0) {
        histogram->zero_count++;
        return -1;
    }
    if (histogram->buckets == NULL && !histogram_make_buckets(histogram)) {
        return -1;
    }
    int position = bucket_position(table, ns);
    histogram->buckets[position]++;
    if (histogram->exemplar_rest > 0) {
        histogram->exemplar_rest--;
        return -1;
    }
    return histogram_exemplar_position(histogram, position, ns);
}

/* Keep an exemplar that `histogram_observe` asked for. Steals the reference to origin. */
static void
histogram_keep_exemplar(Histogram *histogram, int position, int64_t ns, int64_t at_unix_ns, PyObject *origin)
{
    Exemplar *place = NULL;
    for (int i = 0; i < histogram->exemplar_count; i++) {
        Exemplar *held = &histogram->exemplars[i];
        if (held->position == position) {
            place = held;
            break;
        }
        if (histogram->exemplar_count == EXEMPLARS_PER_HISTOGRAM
            && (place == NULL || held->position < place->position)) {
            place = held;
        }
    }
    if (place == NULL) {
        place = &histogram->exemplars[histogram->exemplar_count++];
        place->origin = NULL;
    }
    PyObject *before = place->origin;
    *place = (Exemplar){origin, ns, at_unix_ns, position};
    Py_XDECREF(before); /* last: it may run code that comes back here */
}

static int
histogram_traverse(Histogram *histogram, visitproc visit, void *arg)
{
    for (int i = 0; i < histogram->exemplar_count; i++) {
        Py_VISIT(histogram->exemplars[i].origin);
    }
    return 0;
}

static void
histogram_drop_exemplars(Histogram *histogram)
{
    Exemplar dropped[EXEMPLARS_PER_HISTOGRAM];
    int count = histogram->exemplar_count;
    memcpy(dropped, histogram->exemplars, sizeof(dropped));
    histogram->exemplar_count = 0;
    for (int i = 0; i < count; i++) {
        Py_XDECREF(dropped[i].origin);
    }
}

/* Empty it; first all of it, since letting go of exemplars may run code that observes again. */
static void
histogram_reset(Histogram *histogram)
{
    Histogram before = *histogram;
    memset(histogram, 0, sizeof(*histogram));
    histogram_drop_exemplars(&before);
    PyMem_Free(before.buckets);
}

static void
histogram_free(Histogram *histogram)
{
    histogram_drop_exemplars(histogram);
    PyMem_Free(histogram->buckets);
    histogram->buckets = NULL;
}

/* Build the arguments of a HistogramState, exemplars drained into it. */
static PyObject *
histogram_read(Histogram *histogram)
{
    Exemplar drained[EXEMPLARS_PER_HISTOGRAM];
    int drained_count = histogram->exemplar_count;
    memcpy(drained, histogram->exemplars, sizeof(drained));
    histogram->exemplar_count = 0;
    histogram->exemplar_rest = 0;
    Histogram read = *histogram; /* building tuples may run a collection, and that more tasks */

    int first = 0;
    int last = -1;
    uint64_t buckets[BUCKET_COUNT];
    if (read.buckets != NULL) {
        memcpy(buckets, read.buckets, sizeof(buckets));
        last = BUCKET_COUNT - 1;
        while (last >= 0 && buckets[last] == 0) {
            last--;
        }
        while (first <= last && buckets[first] == 0) {
            first++;
        }
        if (last < 0) {
            first = 0;
        }
    }
    PyObject *result = NULL;
    PyObject *exemplars = NULL;
    PyObject *counts = PyTuple_New(last - first + 1);
    if (counts == NULL) {
        goto done;
    }
    for (int i = first; i <= last; i++) {
        PyObject *count = PyLong_FromUnsignedLongLong(buckets[i]);
        if (count == NULL) {
            goto done;
        }
        PyTuple_SET_ITEM(counts, i - first, count);
    }
    exemplars = PyTuple_New(drained_count);
    if (exemplars == NULL) {
        goto done;
    }
    for (int i = 0; i < drained_count; i++) {
        PyObject *exemplar = Py_BuildValue("(iLLO)", drained[i].position, (long long)drained[i].value_ns,
                                           (long long)drained[i].at_unix_ns, drained[i].origin);
        if (exemplar == NULL) {
            goto done;
        }
        PyTuple_SET_ITEM(exemplars, i, exemplar);
    }
    result = Py_BuildValue("(KLLLKiOO)", (unsigned long long)read.count, (long long)read.sum_ns,
                           (long long)read.min_ns, (long long)read.max_ns, (unsigned long long)read.zero_count,
                           first, counts, exemplars);
done:
    Py_XDECREF(counts);
    Py_XDECREF(exemplars);
    for (int i = 0; i < drained_count; i++) {
        Py_DECREF(drained[i].origin);
    }
    return result;
}

/* The same without exemplars, which stay where they are. */
static PyObject *
histogram_peek(Histogram *histogram)
{
    Histogram seen = *histogram;
    seen.exemplar_count = 0;
    return histogram_read(&seen);
}

#endif
