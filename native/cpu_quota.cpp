// Reads the affinity mask, the cgroup CPU quota and COMPOSABLE_NUM_THREADS.
#include "cpu_quota.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string_view>
#include <vector>

#include <sched.h>
#include <unistd.h>

namespace composable {
namespace {

constexpr const char* kVariable = "COMPOSABLE_NUM_THREADS";
constexpr std::string_view kBlanks = " \t\n\v\f\r";

// --- text

// C's files instead of streams: a directory or a failing read is an error value there, not an exception.
std::optional<std::string> read_text(const std::string& path) {
  struct Close {
    void operator()(std::FILE* file) const noexcept { std::fclose(file); }
  };
  const std::unique_ptr<std::FILE, Close> file(std::fopen(path.c_str(), "re"));
  if (!file) return std::nullopt;
  std::string text;
  char chunk[4096];
  while (const std::size_t got = std::fread(chunk, 1, sizeof chunk, file.get())) text.append(chunk, got);
  if (std::ferror(file.get())) return std::nullopt;
  return text;
}

std::string_view trim(std::string_view text) {
  const auto first = text.find_first_not_of(kBlanks);
  if (first == text.npos) return {};
  return text.substr(first, text.find_last_not_of(kBlanks) - first + 1);
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (;;) {
    const auto end = text.find(separator);
    parts.push_back(text.substr(0, end));
    if (end == text.npos) return parts;
    text.remove_prefix(end + 1);
  }
}

bool lists(std::string_view items, std::string_view item) {
  const auto parts = split(items, ',');
  return std::find(parts.begin(), parts.end(), item) != parts.end();
}

template <class Integer>
std::optional<Integer> positive(std::string_view text) {
  Integer value = 0;
  const auto end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, value);
  if (parsed.ec != std::errc() || parsed.ptr != end || value < 1) return std::nullopt;
  return value;
}

// mountinfo writes blanks and backslashes in names as three octal digits.
std::string unescape(std::string_view text) {
  const auto octal = [](char c) { return c >= '0' && c <= '7'; };
  std::string plain;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size() && octal(text[i + 1]) && octal(text[i + 2]) && octal(text[i + 3])) {
      plain += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0'));
      i += 3;
    } else {
      plain += text[i];
    }
  }
  return plain;
}

// --- cgroups

enum class Version { v1, v2 };

struct Mount {
  std::string root;  // the group which the mount point shows, in the terms of /proc/self/cgroup
  std::string point;
};

// Lines are "id:controllers:path"; the path may hold colons. v2 is the line without controllers.
std::optional<std::string> own_group(std::string_view cgroup_text, Version version) {
  for (const auto line : split(cgroup_text, '\n')) {
    const auto first = line.find(':');
    if (first == line.npos) continue;
    const auto second = line.find(':', first + 1);
    if (second == line.npos) continue;
    const auto controllers = line.substr(first + 1, second - first - 1);
    const bool wanted =
        version == Version::v2 ? line.substr(0, first) == "0" && controllers.empty() : lists(controllers, "cpu");
    if (wanted) return std::string(line.substr(second + 1));
  }
  return std::nullopt;
}

// Lines are "id parent device root point options [tags...] - type source superoptions".
std::vector<Mount> mounts(std::string_view mountinfo_text, Version version) {
  std::vector<Mount> found;
  for (const auto line : split(mountinfo_text, '\n')) {
    const auto fields = split(line, ' ');
    const auto dash = std::find(fields.begin(), fields.end(), "-");
    if (dash - fields.begin() < 6 || fields.end() - dash < 4) continue;
    const bool wanted = version == Version::v2 ? dash[1] == "cgroup2" : dash[1] == "cgroup" && lists(dash[3], "cpu");
    if (wanted) found.push_back({unescape(fields[3]), unescape(fields[4])});
  }
  return found;
}

// Path of `group` below the mount point: "" or "/a/b"; nullopt if the mount does not show it. A path with ".." belongs
// to a process outside its own cgroup namespace.
std::optional<std::string> path_below(const Mount& mount, std::string_view group) {
  const std::string_view root = mount.root == "/" ? std::string_view() : mount.root;
  if (!group.starts_with(root)) return std::nullopt;
  group.remove_prefix(root.size());
  if (group == "/") group = {};
  if (!group.empty() && group.front() != '/') return std::nullopt;
  const auto names = split(group, '/');
  if (std::find(names.begin(), names.end(), "..") != names.end()) return std::nullopt;
  return std::string(group);
}

std::optional<double> quota_of(const std::string& directory, Version version) {
  std::optional<std::string> quota_text, period_text;
  if (version == Version::v1) {
    quota_text = read_text(directory + "/cpu.cfs_quota_us");
    period_text = read_text(directory + "/cpu.cfs_period_us");
  } else if (const auto both = read_text(directory + "/cpu.max")) {
    const auto words = split(trim(*both), ' ');
    if (words.size() != 2) return std::nullopt;
    quota_text = words[0];
    period_text = words[1];
  }
  if (!quota_text || !period_text) return std::nullopt;
  const auto quota = positive<std::int64_t>(trim(*quota_text));  // "-1" and "max": no quota
  const auto period = positive<std::int64_t>(trim(*period_text));
  if (!quota || !period) return std::nullopt;
  return static_cast<double>(*quota) / static_cast<double>(*period);
}

void take_smaller(std::optional<CpuQuota>& smallest, const std::optional<CpuQuota>& other) {
  if (other && (!smallest || other->cpus < smallest->cpus)) smallest = other;
}

// Groups that do not exist under the mount are passed by, so the mount point alone counts if nothing else is there.
std::optional<CpuQuota> quota_upwards(const Mount& mount, std::string below, Version version, const std::string& root) {
  std::optional<CpuQuota> smallest;
  for (;;) {
    const std::string group = mount.point + below;
    if (const auto cpus = quota_of(root + group, version)) take_smaller(smallest, CpuQuota{*cpus, group});
    if (below.empty()) return smallest;
    below.erase(below.rfind('/'));
  }
}

std::optional<CpuQuota> hierarchy_quota(std::string_view cgroup_text, std::string_view mountinfo_text, Version version,
                                        const std::string& root) {
  const auto group = own_group(cgroup_text, version);
  if (!group) return std::nullopt;
  const auto all = mounts(mountinfo_text, version);
  std::optional<CpuQuota> smallest;
  bool shown = false;
  for (const Mount& mount : all) {
    const auto below = path_below(mount, *group);
    if (!below) continue;
    shown = true;
    take_smaller(smallest, quota_upwards(mount, *below, version, root));
  }
  // No mount shows the group, as after entering a cgroup namespace without mounting anew. What is mounted is most
  // likely the container's own group; of several only the first, since the others may be anybody's.
  if (!shown && !all.empty()) smallest = quota_upwards(all.front(), "", version, root);
  return smallest;
}

// --- the other two

int read_affinity() {
  // The kernel refuses a mask shorter than its own with EINVAL; one cpu_set_t holds 1024 CPUs.
  constexpr std::size_t kMostSets = 1024;
  for (std::size_t sets = 1; sets <= kMostSets; sets *= 2) {
    std::vector<cpu_set_t> mask(sets);
    const std::size_t bytes = sets * sizeof(cpu_set_t);
    if (sched_getaffinity(0, bytes, mask.data()) == 0) {
      const int count = CPU_COUNT_S(bytes, mask.data());
      if (count > 0) return count;
      break;
    }
    if (errno != EINVAL) break;
  }
  return static_cast<int>(std::max(1L, sysconf(_SC_NPROCESSORS_ONLN)));
}

std::optional<int> read_variable() {
  const char* const text = std::getenv(kVariable);
  if (!text || trim(text).empty()) return std::nullopt;
  if (const auto value = positive<int>(trim(text))) return value;
  throw std::invalid_argument(std::string(kVariable) + " must be a whole number of at least 1, not '" + text + "'");
}

}  // namespace

std::optional<CpuQuota> read_cgroup_quota(const std::string& proc_self_cgroup, const std::string& proc_self_mountinfo,
                                          const std::string& root) {
  const auto cgroup_text = read_text(proc_self_cgroup);
  const auto mountinfo_text = read_text(proc_self_mountinfo);
  if (!cgroup_text || !mountinfo_text) return std::nullopt;
  // Both, since on hybrid hosts either hierarchy may have the cpu controller.
  auto smallest = hierarchy_quota(*cgroup_text, *mountinfo_text, Version::v1, root);
  take_smaller(smallest, hierarchy_quota(*cgroup_text, *mountinfo_text, Version::v2, root));
  return smallest;
}

CpuLimits combine_limits(int affinity, const std::optional<CpuQuota>& quota, std::optional<int> variable) {
  CpuLimits limits{affinity, std::nullopt, "", variable, affinity, "affinity"};
  if (quota) {
    limits.quota = quota->cpus;
    limits.quota_group = quota->group;
    const double whole = std::ceil(quota->cpus);
    if (whole < limits.slots) {  // compared before the cast: a quota may be beyond int
      limits.slots = static_cast<int>(whole);
      limits.source = "quota";
    }
  }
  if (variable && *variable < limits.slots) {
    limits.slots = *variable;
    limits.source = kVariable;
  }
  return limits;
}

CpuLimits read_cpu_limits() {
  return combine_limits(read_affinity(), read_cgroup_quota("/proc/self/cgroup", "/proc/self/mountinfo"),
                        read_variable());
}

}  // namespace composable
