/* Start programs at a rate.
 *
 *     launch RATE SECONDS fork
 *     launch RATE SECONDS PROGRAM VALUE LIVES_MS EVERY_US     see target.c
 *
 * RATE a second, at irregular times; 0: one after the other, as fast as they end.  Prints one line
 * at the end, "all COUNT MISSED SECONDS CPU_US": how many have run, how many of them ended with a
 * status other than 0, how long it took, and the CPU time of all of them and of this program.
 *
 * Build: cc -O2 -static -o launch launch.c
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long ended, missed;

static long long nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static double cpu_microseconds(int who)
{
    struct rusage usage;
    getrusage(who, &usage);
    return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6 + usage.ru_utime.tv_usec +
           usage.ru_stime.tv_usec;
}

static void start(char **what)
{
    pid_t pid = fork();
    if (pid > 0)
        return;
    if (pid < 0) {
        perror("fork");
        exit(1);
    }
    if (!strcmp(what[0], "fork"))
        _exit(0);
    char now[32];
    char *arguments[] = {what[0], now, what[1], what[2], what[3], NULL};
    snprintf(now, sizeof now, "%lld", nanoseconds());
    execv(what[0], arguments);
    _exit(127);
}

static void reap(int options)
{
    int status;
    while (waitpid(-1, &status, options) > 0) {
        ended++;
        missed += status != 0;
    }
}

int main(int argc, char **argv)
{
    if (argc != 7 && !(argc == 4 && !strcmp(argv[3], "fork")))
        return 64;
    double rate = atof(argv[1]);
    long long began = nanoseconds(), end = began + (long long)(atof(argv[2]) * 1e9);
    prctl(PR_SET_TIMERSLACK, 1);
    srandom((unsigned)began);
    for (long i = 0;; i++) {
        if (rate > 0) {
            double at_seconds = (i + random() / (RAND_MAX + 1.0)) / rate;
            long long at = began + (long long)(at_seconds * 1e9);
            struct timespec when = {at / 1000000000, at % 1000000000};
            if (at >= end)
                break;
            clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &when, NULL);
        } else if (nanoseconds() >= end) {
            break;
        }
        start(argv + 3);
        reap(rate > 0 ? WNOHANG : 0);
    }
    double seconds = (nanoseconds() - began) / 1e9;
    reap(0);
    printf("all %ld %ld %.3f %.0f\n", ended, missed, seconds,
           cpu_microseconds(RUSAGE_SELF) + cpu_microseconds(RUSAGE_CHILDREN));
    return 0;
}
