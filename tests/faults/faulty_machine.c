/* A faulty machine, for LD_PRELOAD: the disk fails or is slow, power fails, the clock or the name
   of the host differs.

   In the folder $FAULTY, one in $FAULTY_ONE_IN writes, syncs and renames fails with $FAULTY_WITH
   (an errno). If that is "power", the process is killed at a rename instead, and a file that was
   not synced after its last write is empty. $FAULTY_SLOW: seconds that each operation takes.
   $FAULTY_FAILURES: a file to which one byte is appended per failure. $FAULTY_CLOCK: seconds by
   which the wall clock is ahead. $FAULTY_HOST: name of the host. $FAULTY_CALLS: a file to which
   each address or name of a machine is appended that the process connects to or resolves. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define MAX_FILES 4096

static ino_t unsynced[MAX_FILES];
static int unsynced_count;

static double number(const char *name, double fallback) {
  const char *text = getenv(name);
  return text ? atof(text) : fallback;
}

static int fails_at_random(void) {
  static unsigned state;
  if (!state) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    state = (unsigned)now.tv_nsec ^ (unsigned)getpid();
  }
  int one_in = (int)number("FAULTY_ONE_IN", 0);
  return one_in && rand_r(&state) % one_in == 0;
}

static void record_failure(void) {
  const char *path = getenv("FAULTY_FAILURES");
  int fd = path ? open(path, O_WRONLY | O_CREAT | O_APPEND, 0600) : -1;
  if (fd < 0) return;
  static ssize_t (*real)(int, const void *, size_t);
  if (!real) real = dlsym(RTLD_NEXT, "write");
  (void)!real(fd, "x", 1);
  close(fd);
}

static int is_in_folder(const char *path) {
  const char *folder = getenv("FAULTY");
  return folder && path && strncmp(path, folder, strlen(folder)) == 0;
}

static int power_fails(void) {
  const char *with = getenv("FAULTY_WITH");
  return with && strcmp(with, "power") == 0;
}

static int fails(const char *path) {
  if (!is_in_folder(path)) return 0;
  double seconds = number("FAULTY_SLOW", 0);
  if (seconds > 0) usleep((useconds_t)(seconds * 1e6));
  if (power_fails() || !fails_at_random()) return 0;
  record_failure();
  errno = (int)number("FAULTY_WITH", EIO);
  return 1;
}

static int fails_on_fd(int fd) {
  char name[64], path[4096];
  int before = errno;
  snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(name, path, sizeof path - 1);
  errno = before;
  if (length < 0) return 0;
  path[length] = 0;
  return fails(path);
}

static int index_of_unsynced(ino_t inode) {
  for (int i = 0; i < unsynced_count; i++)
    if (unsynced[i] == inode) return i;
  return -1;
}

static void track_sync(int fd, int synced) {
  struct stat status;
  if (!power_fails() || fstat(fd, &status) || !S_ISREG(status.st_mode)) return;
  int slot = index_of_unsynced(status.st_ino);
  if (synced && slot >= 0) unsynced[slot] = unsynced[--unsynced_count];
  if (!synced && slot < 0 && unsynced_count < MAX_FILES) unsynced[unsynced_count++] = status.st_ino;
}

ssize_t write(int fd, const void *bytes, size_t count) {
  if (fails_on_fd(fd)) return -1;
  track_sync(fd, 0);
  return REAL(write)(fd, bytes, count);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
  if (fails_on_fd(fd)) return -1;
  track_sync(fd, 0);
  return REAL(pwrite64)(fd, bytes, count, at);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) {
  return pwrite64(fd, bytes, count, at);
}

int fsync(int fd) {
  if (fails_on_fd(fd)) return -1;
  track_sync(fd, 1);
  return REAL(fsync)(fd);
}

int rename(const char *from, const char *to) {
  if (fails(to)) return -1;
  if (!is_in_folder(to) || !power_fails() || !fails_at_random()) return REAL(rename)(from, to);
  struct stat status;
  if (stat(from, &status) == 0 && index_of_unsynced(status.st_ino) >= 0) (void)!truncate(from, 0);
  int done = REAL(rename)(from, to);
  record_failure();
  raise(SIGKILL);
  return done;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  int done = REAL(clock_gettime)(clock, now);
  if (done == 0 && clock == CLOCK_REALTIME) now->tv_sec += (time_t)number("FAULTY_CLOCK", 0);
  return done;
}

int gethostname(char *name, size_t size) {
  const char *other = getenv("FAULTY_HOST");
  if (!other) return REAL(gethostname)(name, size);
  snprintf(name, size, "%s", other);
  return 0;
}

static void record_call(const char *machine) {
  const char *path = getenv("FAULTY_CALLS");
  int fd = path ? open(path, O_WRONLY | O_CREAT | O_APPEND, 0600) : -1;
  if (fd < 0) return;
  dprintf(fd, "%s\n", machine);
  close(fd);
}

int connect(int fd, const struct sockaddr *address, socklen_t length) {
  char text[INET6_ADDRSTRLEN] = "";
  if (address->sa_family == AF_INET)
    inet_ntop(AF_INET, &((const struct sockaddr_in *)address)->sin_addr, text, sizeof text);
  if (address->sa_family == AF_INET6)
    inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)address)->sin6_addr, text, sizeof text);
  if (*text) record_call(text);
  return REAL(connect)(fd, address, length);
}

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints,
                struct addrinfo **found) {
  if (name) record_call(name);
  return REAL(getaddrinfo)(name, service, hints, found);
}
