/* The clocks, in integer nanoseconds.

   A step needs two readings, and they are most of what it costs: CLOCK_MONOTONIC takes some 20 ns, the processor's time
   stamp counter 8. Where the kernel itself keeps time by that counter, and the processor says that it never changes its
   pace, so do we: scaled to CLOCK_MONOTONIC when the module is loaded, and again at every reading of a probe. If the two
   ever disagree by more than MAX_DISAGREEMENT, the counter is left for good. Readings of this clock are only ever
   compared with each other; its zero means nothing. */

#ifndef OTEL_CONCURRENCY_CLOCK_H
#define OTEL_CONCURRENCY_CLOCK_H

#ifdef _WIN32
#include <windows.h>

static inline int64_t
system_monotonic_ns(void)
{
    LARGE_INTEGER frequency;
    LARGE_INTEGER ticks;
    QueryPerformanceFrequency(&frequency);
    QueryPerformanceCounter(&ticks);
    int64_t whole = ticks.QuadPart / frequency.QuadPart;
    int64_t rest = ticks.QuadPart % frequency.QuadPart;
    return whole * 1000000000 + rest * 1000000000 / frequency.QuadPart;
}

static inline int64_t
unix_ns(void)
{
    FILETIME now;
    GetSystemTimePreciseAsFileTime(&now);
    int64_t hundreds = ((int64_t)now.dwHighDateTime << 32) | now.dwLowDateTime;
    return (hundreds - 116444736000000000) * 100; /* 1601-01-01 to 1970-01-01 */
}
#else
#include <time.h>

static inline int64_t
clock_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* The clock behind time.monotonic_ns(). */
static inline int64_t
system_monotonic_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

static inline int64_t
unix_ns(void)
{
    return clock_ns(CLOCK_REALTIME);
}
#endif

#if defined(__x86_64__) && defined(__linux__) && (defined(__GNUC__) || defined(__clang__))
#define COUNTER_CLOCK
#include <cpuid.h>
#include <stdio.h>
#include <x86intrin.h>

#define FIRST_CALIBRATION_NS 1000000 /* with readings some 50 ns apart, right to 1 in 10,000 until the next */
#define NEXT_CALIBRATION_NS 100000000
#define MAX_DISAGREEMENT 0.01
#endif

typedef struct {
    int64_t base_ns;
#ifdef COUNTER_CLOCK
    int counts; /* 0: the counter is not used, base_ns is an offset to the system's clock */
    uint64_t base_ticks;
    uint64_t ns_per_tick; /* 32.32 fixed point */
    uint64_t first_ticks;
    int64_t first_ns;
#endif
} Clock;

static inline int64_t
monotonic_ns(const Clock *clock)
{
#ifdef COUNTER_CLOCK
    if (clock->counts) {
        unsigned __int128 ticks = __rdtsc() - clock->base_ticks;
        return clock->base_ns + (int64_t)(ticks * clock->ns_per_tick >> 32);
    }
#endif
    return system_monotonic_ns() + clock->base_ns;
}

#ifdef COUNTER_CLOCK
/* Both clocks at one moment: of a few tries the one in which reading took least. */
static void
read_both(uint64_t *ticks, int64_t *ns)
{
    uint64_t least = UINT64_MAX;
    for (int i = 0; i < 5; i++) {
        uint64_t before = __rdtsc();
        int64_t between = system_monotonic_ns();
        uint64_t took = __rdtsc() - before;
        if (took < least) {
            least = took;
            *ticks = before + took / 2;
            *ns = between;
        }
    }
}

static int
counter_is_trustworthy(void)
{
    unsigned int eax, ebx, ecx, edx;
    if (!__get_cpuid(0x80000007, &eax, &ebx, &ecx, &edx) || (edx & (1u << 8)) == 0) {
        return 0; /* no invariant time stamp counter */
    }
    char name[16] = "";
    FILE *file = fopen("/sys/devices/system/clocksource/clocksource0/current_clocksource", "r");
    if (file == NULL) {
        return 0;
    }
    char *read = fgets(name, sizeof(name), file);
    fclose(file);
    return read != NULL && strcmp(name, "tsc\n") == 0;
}

static void
clock_init(Clock *clock)
{
    memset(clock, 0, sizeof(*clock));
    if (!counter_is_trustworthy()) {
        return;
    }
    uint64_t ticks;
    int64_t ns;
    read_both(&clock->first_ticks, &clock->first_ns);
    do {
        read_both(&ticks, &ns);
    } while (ns - clock->first_ns < FIRST_CALIBRATION_NS);
    if (ticks <= clock->first_ticks) {
        return;
    }
    clock->ns_per_tick = (uint64_t)((double)(ns - clock->first_ns) / (double)(ticks - clock->first_ticks) * 0x1p32);
    clock->base_ticks = ticks;
    clock->base_ns = ns;
    clock->counts = 1;
}

/* Scale the counter anew, over all the time since the module was loaded; the clock goes on from where it is. */
static void
clock_adjust(Clock *clock)
{
    if (!clock->counts) {
        return;
    }
    uint64_t ticks;
    int64_t ns;
    read_both(&ticks, &ns);
    if (ns - clock->first_ns < NEXT_CALIBRATION_NS) {
        return;
    }
    int64_t reached_ns = monotonic_ns(clock);
    double pace = (double)(ns - clock->first_ns) / (double)(int64_t)(ticks - clock->first_ticks) * 0x1p32;
    double known = (double)clock->ns_per_tick;
    if (!(pace > known * (1 - MAX_DISAGREEMENT) && pace < known * (1 + MAX_DISAGREEMENT))) {
        clock->counts = 0;
        clock->base_ns = reached_ns - system_monotonic_ns();
        return;
    }
    clock->base_ns = reached_ns;
    clock->base_ticks = __rdtsc();
    clock->ns_per_tick = (uint64_t)pace;
}
#else
static void
clock_init(Clock *clock)
{
    clock->base_ns = 0;
}

static void
clock_adjust(Clock *clock)
{
    (void)clock;
}
#endif

#endif
