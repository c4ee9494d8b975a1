/* Loaded into the program under test with LD_PRELOAD: counts its calls that change something
 * outside of it, over all its threads, and does what it was told at one of them.
 *
 *   TORTURE_ONLY    first argument of the processes that are counted (`deploy`)
 *   TORTURE_AT      at which call, from 1; 0 for none
 *   TORTURE_SIGNAL  the signal that the process then sends to itself; or
 *   TORTURE_ERRNO   what that call and every later one that needs room on a disk fails with; if
 *                   it is not ENOSPC, also those that change something there without any
 *   TORTURE_NOTE    file: the number of calls at its end, or the time of the signal
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static int active, number, failure;
static long at, calls;
static pid_t self;
static char file[4096];

static void note(const char *what, long long value) {
    char text[64];
    int length = snprintf(text, sizeof text, "%s %lld\n", what, value);
    int fd = syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd >= 0) {
        syscall(SYS_write, fd, text, length);
        syscall(SYS_close, fd);
    }
}

static long number_of(const char *name) {
    const char *text = getenv(name);
    return text ? atol(text) : 0;
}

__attribute__((constructor)) static void begin(void) {
    char line[4096] = "";
    int fd = syscall(SYS_openat, AT_FDCWD, "/proc/self/cmdline", O_RDONLY | O_CLOEXEC, 0);
    long length = syscall(SYS_read, fd, line, sizeof line - 1);
    syscall(SYS_close, fd);
    const char *only = getenv("TORTURE_ONLY"), *to = getenv("TORTURE_NOTE");
    size_t program = strlen(line) + 1;
    if (!only || !to || length <= (long)program || strcmp(line + program, only) != 0)
        return;
    at = number_of("TORTURE_AT");
    number = number_of("TORTURE_SIGNAL");
    failure = number_of("TORTURE_ERRNO");
    strncpy(file, to, sizeof file - 1);
    self = getpid();
    active = 1;
    /* What this process starts is not counted. */
    unsetenv("LD_PRELOAD");
}

__attribute__((destructor)) static void end(void) {
    if (active && getpid() == self)
        note("calls", calls);
}

/* Changes something on a disk, without new room. */
#define CHANGES 2

/* Whether the call is to fail. */
static int point(int needs_room) {
    if (!active || getpid() != self)
        return 0;
    long n = __atomic_add_fetch(&calls, 1, __ATOMIC_SEQ_CST);
    if (failure)
        return at && n >= at && (needs_room == 1 || (needs_room == CHANGES && failure != ENOSPC));
    if (n == at && number) {
        struct timespec now;
        clock_gettime(CLOCK_BOOTTIME, &now);
        note("signal", now.tv_sec * 1000LL + now.tv_nsec / 1000000);
        kill(self, number);
    }
    return 0;
}

static int is_file(int fd) {
    struct stat about;
    return syscall(SYS_fstat, fd, &about) == 0 && S_ISREG(about.st_mode);
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define FAIL_IF(condition) do { if (condition) { errno = failure; return -1; } } while (0)

ssize_t write(int fd, const void *from, size_t length) {
    FAIL_IF(point(failure && is_file(fd) ? 1 : 0));
    return NEXT(write)(fd, from, length);
}
ssize_t pwrite64(int fd, const void *from, size_t length, off64_t where) {
    FAIL_IF(point(1));
    return NEXT(pwrite64)(fd, from, length, where);
}
ssize_t send(int fd, const void *from, size_t length, int flags) {
    point(0);
    return NEXT(send)(fd, from, length, flags);
}

#define OPEN(name, before, ...)                                                       \
    int name(before const char *path, int flags, ...) {                               \
        mode_t mode = 0;                                                              \
        if (flags & (O_CREAT | O_TMPFILE)) {                                          \
            va_list rest;                                                             \
            va_start(rest, flags);                                                    \
            mode = va_arg(rest, mode_t);                                              \
            va_end(rest);                                                             \
        }                                                                             \
        if (flags & (O_CREAT | O_TRUNC))                                              \
            FAIL_IF(point(flags & O_CREAT && access(path, F_OK) != 0 ? 1 : CHANGES));               \
        return NEXT(name)(__VA_ARGS__ path, flags, mode);                             \
    }
#define DIRECTORY int directory,
OPEN(open, , )
OPEN(open64, , )
OPEN(openat, DIRECTORY, directory, )
OPEN(openat64, DIRECTORY, directory, )

/* A call before and after which the process may be ended. */
#define CALL(room, name, parameters, ...)                                             \
    int name parameters {                                                             \
        FAIL_IF(point(room));                                                         \
        int result = NEXT(name)(__VA_ARGS__);                                         \
        int kept = errno;                                                             \
        point(0);                                                                     \
        errno = kept;                                                                 \
        return result;                                                                \
    }
CALL(1, rename, (const char *a, const char *b), a, b)
CALL(1, renameat, (int d, const char *a, int e, const char *b), d, a, e, b)
CALL(1, link, (const char *a, const char *b), a, b)
CALL(1, linkat, (int d, const char *a, int e, const char *b, int f), d, a, e, b, f)
CALL(1, symlink, (const char *a, const char *b), a, b)
CALL(1, symlinkat, (const char *a, int d, const char *b), a, d, b)
CALL(1, mkdir, (const char *a, mode_t m), a, m)
CALL(1, mkdirat, (int d, const char *a, mode_t m), d, a, m)
CALL(CHANGES, unlink, (const char *a), a)
CALL(CHANGES, unlinkat, (int d, const char *a, int f), d, a, f)
CALL(CHANGES, rmdir, (const char *a), a)
CALL(CHANGES, ftruncate64, (int fd, off64_t n), fd, n)
CALL(CHANGES, ftruncate, (int fd, off_t n), fd, n)
CALL(CHANGES, fsync, (int fd), fd)
CALL(CHANGES, fdatasync, (int fd), fd)
CALL(CHANGES, syncfs, (int fd), fd)
CALL(CHANGES, fchmod, (int fd, mode_t m), fd, m)
CALL(0, flock, (int fd, int how), fd, how)
CALL(0, connect, (int fd, const struct sockaddr *to, unsigned n), fd, to, n)
CALL(0, posix_spawn,
     (pid_t *p, const char *a, const posix_spawn_file_actions_t *f, const posix_spawnattr_t *t,
      char *const v[], char *const e[]),
     p, a, f, t, v, e)
CALL(0, posix_spawnp,
     (pid_t *p, const char *a, const posix_spawn_file_actions_t *f, const posix_spawnattr_t *t,
      char *const v[], char *const e[]),
     p, a, f, t, v, e)
pid_t fork(void) {
    point(0);
    pid_t child = NEXT(fork)();
    if (child > 0)
        point(0);
    return child;
}
