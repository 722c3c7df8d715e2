/* Two clocks in integer nanoseconds. The monotonic one is the clock behind time.monotonic_ns() wherever that matters. */

#ifndef OTEL_CONCURRENCY_CLOCK_H
#define OTEL_CONCURRENCY_CLOCK_H

#ifdef _WIN32
#include <windows.h>

static inline int64_t
monotonic_ns(void)
{
    static LARGE_INTEGER frequency; /* the same for every caller, so a race writes the same value */
    LARGE_INTEGER ticks;
    if (frequency.QuadPart == 0) {
        QueryPerformanceFrequency(&frequency);
    }
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

static inline int64_t
monotonic_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

static inline int64_t
unix_ns(void)
{
    return clock_ns(CLOCK_REALTIME);
}
#endif

#endif
