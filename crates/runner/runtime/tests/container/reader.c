/* Runs in a container and reads what it can of each process that appears, as fast as it can: whatever belongs to the
 * host is written to OUTPUT, a line a finding, and so is each process that was seen before it executed its program.
 *
 * reader OUTPUT MARKER DIRECTORY INIT
 *   MARKER     stands in the host's mounts, sockets, and in the runtime's arguments and environment
 *   DIRECTORY  exists on the host alone
 *   INIT       name of a process that has not executed its program yet
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int output;
static char text[1 << 20];

static void found(const char *form, ...) {
    char line[512];
    va_list args;
    va_start(args, form);
    int length = vsnprintf(line, sizeof line - 1, form, args);
    va_end(args);
    line[length++] = '\n';
    if (write(output, line, length) != length) _exit(3);
}

/* Reads a whole file; zero bytes become spaces. */
static ssize_t slurp(const char *path, char *into, size_t size) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    size_t length = 0;
    ssize_t part;
    while (length < size - 1 && (part = read(fd, into + length, size - 1 - length)) > 0) length += part;
    close(fd);
    for (size_t at = 0; at < length; at++)
        if (!into[at]) into[at] = ' ';
    into[length] = 0;
    return length;
}

static void search(int pid, const char *file, const char *marker) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", pid, file);
    if (slurp(path, text, sizeof text) > 0 && strstr(text, marker)) found("FOUND %s %d", file, pid);
}

static void look(int pid, const char *marker, const char *directory, const char *init) {
    char path[256], link[256];
    search(pid, "mountinfo", marker);
    search(pid, "net/unix", marker);
    search(pid, "cmdline", marker);
    search(pid, "cmdline", "runc");
    search(pid, "environ", marker);
    search(pid, "maps", "runc");
    snprintf(path, sizeof path, "/proc/%d/exe", pid);
    ssize_t length = readlink(path, link, sizeof link - 1);
    /* Either the program of the container or the image that makes the last calls; the runtime's own has no path here. */
    if (length > 0 && (link[length] = 0, strncmp(link, "/bin/", 5) && strncmp(link, "/memfd:init", 11)))
        found("FOUND exe %s", link);
    struct stat stat_of;
    const char *ways[] = {"root", "cwd/../../../../../../../.."};
    for (int way = 0; way < 2; way++) {
        snprintf(path, sizeof path, "/proc/%d/%s%s", pid, ways[way], directory);
        if (!stat(path, &stat_of)) found("FOUND %s", path);
    }
    for (int fd = 0; fd < 24; fd++) {
        snprintf(path, sizeof path, "/proc/%d/fd/%d/../../../../../../../..%s", pid, fd, directory);
        if (!stat(path, &stat_of)) found("FOUND %s", path);
    }
    snprintf(path, sizeof path, "/proc/%d/comm", pid);
    if (slurp(path, text, sizeof text) > 0 && !strncmp(text, init, strlen(init))) found("SEEN %d", pid);
}

/* The newest process. */
static int newest(void) {
    DIR *proc = opendir("/proc");
    int last = 0;
    for (struct dirent *entry; (entry = readdir(proc));)
        if (atoi(entry->d_name) > last) last = atoi(entry->d_name);
    closedir(proc);
    return last;
}

int main(int count, char **args) {
    if (count != 5) return 2;
    output = open(args[1], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (output < 0) return 2;
    found("READY");
    int last = newest();
    for (unsigned long round = 0;; round++) {
        /* Numbers are given out in order: the next few are tried before they exist. */
        for (int pid = last + 1; pid < last + 4; pid++) {
            char path[64];
            snprintf(path, sizeof path, "/proc/%d", pid);
            if (access(path, F_OK)) continue;
            for (int again = 0; again < 8; again++) look(pid, args[2], args[3], args[4]);
            last = pid;
        }
        if (round % 4096 == 0 && newest() > last) last = newest();
    }
}
