/* A disk that fails: loaded before the C library (LD_PRELOAD), it lets one write, sync or truncation of a file fail.
 *
 * FAILING_DISK_FILE    part of the file's path
 * FAILING_DISK_AT      which of the calls on such files fails, from 1 on
 * FAILING_DISK_ERRNO   with what: 5 (EIO) or 28 (ENOSPC)
 * FAILING_DISK_TOLD    file that is made when the call failed
 *
 * Everything else goes to the C library as it is.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static atomic_long calls;

/* 1 where this call is the one that is to fail; errno is set then. */
static int fails(int fd) {
    const char *file = getenv("FAILING_DISK_FILE");
    const char *at = getenv("FAILING_DISK_AT");
    const char *with = getenv("FAILING_DISK_ERRNO");
    const char *told = getenv("FAILING_DISK_TOLD");
    char link[64], path[4096];
    ssize_t length;
    if (!file || !at || !with) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    if (!strstr(path, file)) return 0;
    if (atomic_fetch_add(&calls, 1) + 1 != atol(at)) return 0;
    if (told) {
        int made = open(told, O_CREAT | O_WRONLY, 0600);
        if (made >= 0) close(made);
    }
    errno = atoi(with);
    return 1;
}

#define REAL(name) \
    static __typeof__(name) *real; \
    if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name);

ssize_t write(int fd, const void *from, size_t count) {
    REAL(write)
    return fails(fd) ? -1 : real(fd, from, count);
}
ssize_t pwrite(int fd, const void *from, size_t count, off_t at) {
    REAL(pwrite)
    return fails(fd) ? -1 : real(fd, from, count, at);
}
ssize_t pwrite64(int fd, const void *from, size_t count, off64_t at) {
    REAL(pwrite64)
    return fails(fd) ? -1 : real(fd, from, count, at);
}
int fsync(int fd) {
    REAL(fsync)
    return fails(fd) ? -1 : real(fd);
}
int fdatasync(int fd) {
    REAL(fdatasync)
    return fails(fd) ? -1 : real(fd);
}
int ftruncate(int fd, off_t size) {
    REAL(ftruncate)
    return fails(fd) ? -1 : real(fd, size);
}
int ftruncate64(int fd, off64_t size) {
    REAL(ftruncate64)
    return fails(fd) ? -1 : real(fd, size);
}
