/* Many idle processes, each with a program name, a command line and memory of its own.
 *
 *     sleepers COUNT     prints "ready" when all are there; they end when stdin does
 *
 * Build: cc -O2 -static -o sleepers sleepers.c
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *const programs[] = {"postgres", "nginx", "redis-server", "java", "python3", "node",
                                       "gunicorn", "celery"};

int main(int argc, char **argv)
{
    if (argc > 2 && !strcmp(argv[1], "sleep")) {
        prctl(PR_SET_NAME, argv[2]);
        for (;;)
            pause();
    }
    if (argc != 2)
        return 64;
    int count = atoi(argv[1]);
    pid_t parent = getpid(), *children = calloc(count, sizeof *children);
    for (int i = 0; i < count; i++) {
        if ((children[i] = fork()) != 0)
            continue;
        char path[64], name[16], option[64];
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
        close(0);
        snprintf(path, sizeof path, "/usr/lib/service%d/bin/%s", i, programs[i % 8]);
        snprintf(name, sizeof name, "%.8s%d", programs[i % 8], i);
        snprintf(option, sizeof option, "--config=/etc/service%d/main.conf", i);
        execl("/proc/self/exe", path, "sleep", name, option, "--listen=127.0.0.1:8080",
              "--log-level=info", "--workers=4", NULL);
        _exit(127);
    }
    usleep(500000);
    puts("ready");
    fflush(stdout);
    while (getchar() != EOF)
        ;
    for (int i = 0; i < count; i++)
        kill(children[i], SIGKILL);
    while (wait(NULL) > 0)
        ;
    return 0;
}
