/* The plainest reader of /proc: what a daemon costs that looks at everything on every turn.
 *
 *     reference INTERVAL_SECONDS TURNS     one turn: list /proc, and of every process read
 *                                          stat, cmdline and oom_score_adj
 *
 * Prints the CPU time of each turn in microseconds, one a line.
 * Build: cc -O2 -o reference reference.c
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static double cpu_microseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return now.tv_sec * 1e6 + now.tv_nsec / 1e3;
}

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
    if (argc != 3)
        return 64;
    for (int left = atoi(argv[2]); left > 0; left--) {
        usleep((useconds_t)(atof(argv[1]) * 1e6));
        double before = cpu_microseconds();
        turn();
        printf("%.0f\n", cpu_microseconds() - before);
        fflush(stdout);
    }
    return 0;
}
