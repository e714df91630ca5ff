/* The plainest reader of /proc: what a daemon costs that looks at everything on every turn.
 *
 *     reference INTERVAL_SECONDS     one turn: list /proc, and of every process read stat, cmdline
 *                                    and oom_score_adj; until killed
 *
 * Build: cc -O2 -static -o reference reference.c
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static void read_file(int directory, const char *name)
{
    static char content[65536];
    int fd = openat(directory, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    while (read(fd, content, sizeof content) == sizeof content)
        ;
    close(fd);
}

static void turn(void)
{
    static const char *const names[] = {"stat", "cmdline", "oom_score_adj"};
    DIR *proc = opendir("/proc");
    struct dirent *entry;
    char path[300];

    while ((entry = readdir(proc)) != NULL) {
        if (entry->d_name[0] < '0' || entry->d_name[0] > '9')
            continue;
        for (int i = 0; i < 3; i++) {
            snprintf(path, sizeof path, "%s/%s", entry->d_name, names[i]);
            read_file(dirfd(proc), path);
        }
    }
    closedir(proc);
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 64;
    long long interval = (long long)(atof(argv[1]) * 1e9);
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    for (long long next = now.tv_sec * 1000000000LL + now.tv_nsec;; next += interval) {
        struct timespec at = {next / 1000000000, next % 1000000000};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
        turn();
    }
}
