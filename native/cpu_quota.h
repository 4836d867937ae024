// How many CPUs this process may really use: affinity mask, cgroup CPU quota, COMPOSABLE_NUM_THREADS.
//
// A quota is CPU time per period, so a fraction of a CPU is rounded up: 1.5 CPUs' worth keeps two threads useful.
// What cannot be read or understood limits nothing; only a bad variable, which its user can mend, is an error.
#pragma once

#include <optional>
#include <string>

namespace composable {

struct CpuQuota {
  double cpus;        // quota / period, above 0
  std::string group;  // directory of the group which sets it, as this process sees it
};

struct CpuLimits {
  int affinity;                 // CPUs in the calling thread's mask, which threads it starts inherit; >= 1
  std::optional<double> quota;  // the smallest of all nested groups; nullopt: none or unreadable
  std::string quota_group;      // CpuQuota::group, "" without a quota
  std::optional<int> variable;  // COMPOSABLE_NUM_THREADS; nullopt: not set or blank
  int slots;                    // P: the smallest of the three, the quota rounded up; >= 1
  std::string source;           // "affinity", "quota" or "COMPOSABLE_NUM_THREADS": which one set P, the first in a tie
};

/// Reads all three now; nothing is cached. Throws std::invalid_argument if COMPOSABLE_NUM_THREADS is neither
/// blank nor a whole number of at least 1.
CpuLimits read_cpu_limits();

/// What read_cpu_limits() makes of its findings. `affinity` and `variable` are at least 1.
CpuLimits combine_limits(int affinity, const std::optional<CpuQuota>& quota, std::optional<int> variable);

/// The smallest CPU quota of the groups described by two files in the formats of /proc/self/cgroup and
/// /proc/self/mountinfo: cgroup v1, v2 or both, each group and all its visible ancestors; of equal ones the
/// innermost. Mount points are looked up below `root`, which `CpuQuota::group` leaves out.
std::optional<CpuQuota> read_cgroup_quota(const std::string& proc_self_cgroup, const std::string& proc_self_mountinfo,
                                          const std::string& root = "");

}  // namespace composable
