/* Many idle processes, each with a program name, a command line and memory of its own.
 *
 *     sleepers COUNT TRACKED POOLS     prints "ready" when all are there; they end when stdin does
 *
 * The first TRACKED of them have --pool=poolN among their arguments, N from 0 to POOLS - 1.
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

static void become_sleeper(int number, int pool)
{
    char path[64], name[32], option[64], which[32] = "--pool=none";
    close(0);
    snprintf(path, sizeof path, "/usr/lib/service%d/bin/%s", number, programs[number % 8]);
    snprintf(name, sizeof name, "%.8s%d", programs[number % 8], number);
    snprintf(option, sizeof option, "--config=/etc/service%d/main.conf", number);
    if (pool >= 0)
        snprintf(which, sizeof which, "--pool=pool%d", pool);
    execl("/proc/self/exe", path, "sleep", name, option, which, "--listen=127.0.0.1:8080",
          "--log-level=info", "--workers=4", NULL);
    _exit(127);
}

int main(int argc, char **argv)
{
    if (argc > 2 && !strcmp(argv[1], "sleep")) {
        prctl(PR_SET_NAME, argv[2]);
        close(1); /* its exec is done */
        for (;;)
            pause();
    }
    if (argc != 4)
        return 64;
    int count = atoi(argv[1]), tracked = atoi(argv[2]), pools = atoi(argv[3]), ready[2];
    pid_t parent = getpid(), *children = calloc(count + 1, sizeof *children);
    if (pipe(ready) < 0)
        return 1;
    for (int i = 0; i < count; i++) {
        if ((children[i] = fork()) < 0) {
            perror("fork");
            break;
        }
        if (children[i] > 0)
            continue;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
        dup2(ready[1], 1);
        close(ready[0]);
        close(ready[1]);
        become_sleeper(i, i < tracked ? i % pools : -1);
    }
    close(ready[1]);
    char told[4096];
    while (read(ready[0], told, sizeof told) > 0) /* until the last has closed its end */
        ;
    puts("ready");
    fflush(stdout);
    while (getchar() != EOF)
        ;
    for (int i = 0; i < count; i++)
        if (children[i] > 0)
            kill(children[i], SIGKILL);
    while (wait(NULL) > 0)
        ;
    return 0;
}
