/* A program that waits for its own oom_score_adj to be set, and tells how long that took.
 *
 *     target STARTED_NS VALUE LIVES_MS EVERY_US
 *
 * Looks every EVERY_US microseconds (0: all the time; after 20 ms, every millisecond) until it sees
 * VALUE, and prints the microseconds from STARTED_NS (of CLOCK_MONOTONIC, just before the exec) to
 * its main, and to its seeing VALUE.  With EVERY_US -1 it lives LIVES_MS, looks once at the end, and prints nothing; with
 * VALUE - it does not look.  Exit status 0, or 1 if VALUE has not come within LIVES_MS.
 *
 * Build: cc -O2 -static -o target target.c
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define PATIENT_NS 20000000

static long long nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void sleep_until(long long at)
{
    struct timespec when = {at / 1000000000, at % 1000000000};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &when, NULL);
}

static int value_now(int fd)
{
    char text[16] = "";
    return pread(fd, text, sizeof text - 1, 0) > 0 ? atoi(text) : -10000;
}

int main(int argc, char **argv)
{
    long long at_main = nanoseconds();
    if (argc != 5)
        return 64;
    long long started = atoll(argv[1]), end = started + atoll(argv[3]) * 1000000;
    long every = atol(argv[4]);
    prctl(PR_SET_TIMERSLACK, 1);
    if (every < 0)
        sleep_until(end);
    if (!strcmp(argv[2], "-"))
        return 0;

    int wanted = atoi(argv[2]), fd = open("/proc/self/oom_score_adj", O_RDONLY);
    if (every < 0)
        return value_now(fd) != wanted;
    long long now = at_main;
    while (value_now(fd) != wanted) {
        now = nanoseconds();
        if (now > end)
            return 1;
        if (now - started > PATIENT_NS)
            every = 1000;
        if (every)
            sleep_until(now + every * 1000);
    }
    now = nanoseconds();
    char line[64];
    int length = snprintf(line, sizeof line, "%lld %lld\n", (at_main - started) / 1000,
                          (now - started) / 1000);
    return write(1, line, length) != length;
}
