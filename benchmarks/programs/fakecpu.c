/* Preloaded, it makes every library of a process believe in FAKE_NCPU CPUs: the affinity calls, sysconf and get_nprocs. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int fake_count(void) {
  const char *text = getenv("FAKE_NCPU");
  return text ? atoi(text) : 0;
}

static int fill_mask(size_t size, cpu_set_t *mask) {
  memset(mask, 0, size);
  for (size_t cpu = 0; cpu < (size_t)fake_count() && cpu < size * 8; ++cpu) CPU_SET_S(cpu, size, mask);
  return 0;
}

int sched_getaffinity(pid_t pid, size_t size, cpu_set_t *mask) {
  if (fake_count()) return fill_mask(size, mask);
  int (*real)(pid_t, size_t, cpu_set_t *) = dlsym(RTLD_NEXT, "sched_getaffinity");
  return real(pid, size, mask);
}

int pthread_getaffinity_np(pthread_t thread, size_t size, cpu_set_t *mask) {
  if (fake_count()) return fill_mask(size, mask);
  int (*real)(pthread_t, size_t, cpu_set_t *) = dlsym(RTLD_NEXT, "pthread_getaffinity_np");
  return real(thread, size, mask);
}

/* Binding to a CPU that is not there must not fail. */
int sched_setaffinity(pid_t pid, size_t size, const cpu_set_t *mask) {
  (void)pid, (void)size, (void)mask;
  return 0;
}

int pthread_setaffinity_np(pthread_t thread, size_t size, const cpu_set_t *mask) {
  (void)thread, (void)size, (void)mask;
  return 0;
}

long sysconf(int name) {
  if (fake_count() && (name == _SC_NPROCESSORS_ONLN || name == _SC_NPROCESSORS_CONF)) return fake_count();
  long (*real)(int) = dlsym(RTLD_NEXT, "sysconf");
  return real(name);
}

int get_nprocs(void) { return fake_count() ? fake_count() : (int)sysconf(_SC_NPROCESSORS_ONLN); }
int get_nprocs_conf(void) { return fake_count() ? fake_count() : (int)sysconf(_SC_NPROCESSORS_CONF); }
