/* The plainest listener: what it costs in C to hear of each exec, and to set oom_score_adj at once.
 *
 *     listener NAME VALUE     of each program that starts, read stat and cmdline; if it is called
 *                             NAME, write VALUE; until killed
 *
 * Build: cc -O2 -static -o listener listener.c
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/cn_proc.h>
#include <linux/connector.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENT_AT (NLMSG_HDRLEN + sizeof(struct cn_msg))

static ssize_t read_file(int directory, const char *name, char *content, size_t size)
{
    int fd = openat(directory, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t length = read(fd, content, size - 1);
    close(fd);
    if (length >= 0)
        content[length] = '\0';
    return length;
}

static void started(int pid, const char *name, const char *value)
{
    char path[32], stat[1024], cmdline[4096];
    snprintf(path, sizeof path, "/proc/%d", pid);
    int directory = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0)
        return;
    char *comm = read_file(directory, "stat", stat, sizeof stat) > 0 ? strchr(stat, '(') : NULL;
    read_file(directory, "cmdline", cmdline, sizeof cmdline);
    if (comm && !strncmp(comm + 1, name, strlen(name)) && comm[1 + strlen(name)] == ')') {
        int fd = openat(directory, "oom_score_adj", O_WRONLY | O_CLOEXEC);
        if (fd >= 0 && write(fd, value, strlen(value)) < 0)
            perror(path);
        close(fd);
    }
    close(directory);
}

static int listening(void)
{
    /* Only EXEC; loads are big-endian. */
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, EVENT_AT),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htonl(PROC_EVENT_EXEC), 0, 1),
        BPF_STMT(BPF_RET | BPF_K, 0xffffffff),
        BPF_STMT(BPF_RET | BPF_K, 0),
    };
    struct sock_fprog filter = {sizeof code / sizeof *code, code};
    struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = CN_IDX_PROC};
    enum proc_cn_mcast_op operation = PROC_CN_MCAST_LISTEN;
    struct cn_msg message = {.id = {CN_IDX_PROC, CN_VAL_PROC}, .len = sizeof operation};
    struct nlmsghdr header = {.nlmsg_type = NLMSG_DONE,
                              .nlmsg_len = NLMSG_HDRLEN + sizeof message + sizeof operation};
    char request[NLMSG_HDRLEN + sizeof message + sizeof operation];
    int size = 4 << 20, link = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_CONNECTOR);

    memcpy(request, &header, sizeof header);
    memcpy(request + NLMSG_HDRLEN, &message, sizeof message);
    memcpy(request + EVENT_AT, &operation, sizeof operation);
    setsockopt(link, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
    if (setsockopt(link, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter) < 0 ||
        bind(link, (struct sockaddr *)&address, sizeof address) < 0 ||
        send(link, request, sizeof request, 0) < 0)
        return -1;
    return link;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 64;
    int link = listening();
    if (link < 0) {
        perror("process events");
        return 1;
    }
    for (;;) {
        char datagram[4096];
        struct proc_event event;
        ssize_t length = recv(link, datagram, sizeof datagram, 0);
        if (length < (ssize_t)(EVENT_AT + sizeof event.what + 16)) {
            if (length < 0 && errno != ENOBUFS && errno != EINTR)
                return 1;
            continue;
        }
        memset(&event, 0, sizeof event);
        size_t size = (size_t)length - EVENT_AT;
        memcpy(&event, datagram + EVENT_AT, size < sizeof event ? size : sizeof event);
        if (event.what == PROC_EVENT_EXEC)
            started(event.event_data.exec.process_tgid, argv[1], argv[2]);
    }
}
