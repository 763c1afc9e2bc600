/* Preloaded: writes, syncs and renames beneath $FAILING fail now and then, with $FAILING_WITH. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static int unlucky(void) {
  static unsigned state;
  if (!state) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    state = (unsigned)now.tv_nsec ^ (unsigned)getpid();
  }
  const char *one_in = getenv("FAILING_ONE_IN");
  return rand_r(&state) % (one_in ? atoi(one_in) : 20) == 0;
}

static int ours(const char *path) {
  const char *folder = getenv("FAILING");
  return folder && path && strncmp(path, folder, strlen(folder)) == 0;
}

static int fails(const char *path) {
  if (!ours(path) || !unlucky()) return 0;
  const char *with = getenv("FAILING_WITH");
  errno = with ? atoi(with) : EIO;
  return 1;
}

static int fails_at(int fd) {
  char name[64], path[4096];
  int before = errno;
  snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(name, path, sizeof path - 1);
  errno = before;
  if (length < 0) return 0;
  path[length] = 0;
  return fails(path);
}

ssize_t write(int fd, const void *bytes, size_t count) {
  static ssize_t (*real)(int, const void *, size_t);
  if (!real) real = dlsym(RTLD_NEXT, "write");
  return fails_at(fd) ? -1 : real(fd, bytes, count);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
  static ssize_t (*real)(int, const void *, size_t, off64_t);
  if (!real) real = dlsym(RTLD_NEXT, "pwrite64");
  return fails_at(fd) ? -1 : real(fd, bytes, count, at);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) {
  return pwrite64(fd, bytes, count, at);
}

int fsync(int fd) {
  static int (*real)(int);
  if (!real) real = dlsym(RTLD_NEXT, "fsync");
  return fails_at(fd) ? -1 : real(fd);
}

int rename(const char *from, const char *to) {
  static int (*real)(const char *, const char *);
  if (!real) real = dlsym(RTLD_NEXT, "rename");
  return fails(to) ? -1 : real(from, to);
}
