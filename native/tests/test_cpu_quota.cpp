// What limits P: affinity, cgroup quotas on fake trees, COMPOSABLE_NUM_THREADS.
#include "../cpu_quota.h"

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>

#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "check.h"

using namespace composable;

// The program's own definition goes before libc's, as an LD_PRELOAD shim's does.
namespace fake_kernel {
static int cpus = 0;  // 0: the real mask
static int error = 0;
static int calls = 0;
}  // namespace fake_kernel

extern "C" int sched_getaffinity(pid_t pid, size_t bytes, cpu_set_t* mask) noexcept {
  ++fake_kernel::calls;
  if (fake_kernel::error) {
    errno = fake_kernel::error;
    return -1;
  }
  CPU_ZERO_S(bytes, mask);
  if (fake_kernel::cpus == 0) return syscall(SYS_sched_getaffinity, pid, bytes, mask) < 0 ? -1 : 0;
  if (bytes * 8 < static_cast<size_t>(fake_kernel::cpus)) {
    errno = EINVAL;
    return -1;
  }
  for (int cpu = 0; cpu < fake_kernel::cpus; ++cpu) CPU_SET_S(cpu, bytes, mask);
  return 0;
}

namespace {

const std::string kTmpfs = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n";
const std::string kV1 = kTmpfs +
                        "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
                        "33 31 0:30 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset\n";
const std::string kV2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

/// A temporary directory which stands for "/".
class FakeRoot {
 public:
  FakeRoot(const std::string& cgroup, const std::string& mountinfo) {
    std::string pattern = (std::filesystem::temp_directory_path() / "cpu_quota.XXXXXX").string();
    if (!mkdtemp(pattern.data())) throw std::runtime_error("no temporary directory");
    path_ = pattern;
    write("/proc/self/cgroup", cgroup);
    write("/proc/self/mountinfo", mountinfo);
  }
  ~FakeRoot() { std::filesystem::remove_all(path_); }
  FakeRoot(const FakeRoot&) = delete;
  FakeRoot& operator=(const FakeRoot&) = delete;

  void write(const std::string& file, const std::string& text) {
    const std::filesystem::path path = path_ + file;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path) << text;
  }
  void make_directory(const std::string& path) { std::filesystem::create_directories(path_ + path); }
  void v1(const std::string& group, const std::string& quota, const std::string& period = "100000") {
    write(group + "/cpu.cfs_quota_us", quota + "\n");
    write(group + "/cpu.cfs_period_us", period + "\n");
  }
  void v2(const std::string& group, const std::string& max) { write(group + "/cpu.max", max + "\n"); }

  std::optional<CpuQuota> quota() const {
    return read_cgroup_quota(path_ + "/proc/self/cgroup", path_ + "/proc/self/mountinfo", path_);
  }
  bool gives(double cpus, const std::string& group) const {
    const auto found = quota();
    if (found && found->cpus == cpus && found->group == group) return true;
    std::fprintf(stderr, "  found %g from '%s'\n", found ? found->cpus : -1, found ? found->group.c_str() : "");
    return false;
  }

 private:
  std::string path_;
};

/// Sets the variable, or unsets it for nullptr, and puts the old value back.
class Variable {
 public:
  explicit Variable(const char* value) {
    if (const char* old = std::getenv(kName)) old_ = old;
    set(value);
  }
  ~Variable() { set(old_ ? old_->c_str() : nullptr); }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;

 private:
  static constexpr const char* kName = "COMPOSABLE_NUM_THREADS";
  static void set(const char* value) { value ? setenv(kName, value, 1) : unsetenv(kName); }
  std::optional<std::string> old_;
};

}  // namespace

// --- cgroup v1

TEST(v1_quota_is_quota_over_period) {
  FakeRoot root("4:cpu,cpuacct:/app\n3:cpuset:/other\n", kV1);
  root.v1("/sys/fs/cgroup/cpu/app", "75000", "50000");
  root.v1("/sys/fs/cgroup/cpuset/app", "10000");
  CHECK(root.gives(1.5, "/sys/fs/cgroup/cpu/app"));
}

TEST(v1_minus_one_is_no_quota) {
  FakeRoot root("4:cpu,cpuacct:/app\n", kV1);
  root.v1("/sys/fs/cgroup/cpu/app", "-1");
  root.v1("/sys/fs/cgroup/cpu", "-1");
  CHECK(!root.quota());
}

TEST(v1_other_controllers_are_no_cpu_controller) {
  FakeRoot root("5:cpuset:/app\n4:cpuacct:/app\n", kV1);
  root.v1("/sys/fs/cgroup/cpu/app", "100000");
  root.v1("/sys/fs/cgroup/cpuset/app", "100000");
  CHECK(!root.quota());
}

TEST(v1_named_hierarchy_is_no_cpu_controller) {
  FakeRoot root("9:name=cpu:/app\n", kTmpfs + "40 31 0:37 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,name=cpu\n");
  root.v1("/sys/fs/cgroup/cpu/app", "100000");
  CHECK(!root.quota());
}

// --- cgroup v2

TEST(v2_quota_is_quota_over_period) {
  FakeRoot root("0::/user.slice/app.scope\n", kV2);
  root.v2("/sys/fs/cgroup/user.slice/app.scope", "150000 100000");
  CHECK(root.gives(1.5, "/sys/fs/cgroup/user.slice/app.scope"));
}

TEST(v2_max_is_no_quota) {
  FakeRoot root("0::/app\n", kV2);
  root.v2("/sys/fs/cgroup/app", "max 100000");
  CHECK(!root.quota());
}

TEST(v2_group_name_may_hold_colons) {
  FakeRoot root("0::/a:b:c\n", kV2);
  root.v2("/sys/fs/cgroup/a:b:c", "200000 100000");
  CHECK(root.gives(2, "/sys/fs/cgroup/a:b:c"));
}

TEST(mount_without_tags_and_with_several_is_read) {
  for (const std::string tags : {"", "shared:4 ", "shared:4 master:2 propagate_from:1 "}) {
    FakeRoot root("0::/\n", "30 23 0:26 / /sys/fs/cgroup rw " + tags + "- cgroup2 cgroup2 rw\n");
    root.v2("/sys/fs/cgroup", "200000 100000");
    CHECK(root.gives(2, "/sys/fs/cgroup"));
  }
}

// --- nesting

TEST(smallest_of_nested_groups_wins) {
  FakeRoot root("0::/a/b/c\n", kV2);
  root.v2("/sys/fs/cgroup/a", "100000 100000");
  root.v2("/sys/fs/cgroup/a/b", "max 100000");
  root.v2("/sys/fs/cgroup/a/b/c", "200000 100000");
  CHECK(root.gives(1, "/sys/fs/cgroup/a"));
  root.v2("/sys/fs/cgroup/a/b", "50000 100000");
  CHECK(root.gives(0.5, "/sys/fs/cgroup/a/b"));
  root.v2("/sys/fs/cgroup", "25000 100000");
  CHECK(root.gives(0.25, "/sys/fs/cgroup"));
}

TEST(smallest_of_nested_v1_groups_wins) {
  FakeRoot root("4:cpu,cpuacct:/a/b\n", kV1);
  root.v1("/sys/fs/cgroup/cpu/a", "100000");
  root.v1("/sys/fs/cgroup/cpu/a/b", "-1");
  CHECK(root.gives(1, "/sys/fs/cgroup/cpu/a"));
}

TEST(innermost_of_equal_quotas_is_named) {
  FakeRoot root("0::/a/b\n", kV2);
  root.v2("/sys/fs/cgroup/a", "100000 100000");
  root.v2("/sys/fs/cgroup/a/b", "50000 50000");
  CHECK(root.gives(1, "/sys/fs/cgroup/a/b"));
}

TEST(sibling_groups_do_not_count) {
  FakeRoot root("0::/a/b\n", kV2);
  root.v2("/sys/fs/cgroup/a/b", "300000 100000");
  root.v2("/sys/fs/cgroup/a/other", "100000 100000");
  CHECK(root.gives(3, "/sys/fs/cgroup/a/b"));
}

TEST(missing_leaf_leaves_its_ancestors) {
  FakeRoot root("0::/a/gone (deleted)\n", kV2);
  root.v2("/sys/fs/cgroup/a", "200000 100000");
  root.v2("/sys/fs/cgroup", "400000 100000");
  CHECK(root.gives(2, "/sys/fs/cgroup/a"));
}

// --- both versions mounted

TEST(hybrid_host_takes_the_smaller_of_both) {
  const std::string v2_too = kV1 + "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
  FakeRoot root("4:cpu,cpuacct:/app\n0::/app\n", v2_too);
  CHECK(!root.quota());
  root.v1("/sys/fs/cgroup/cpu/app", "300000");
  CHECK(root.gives(3, "/sys/fs/cgroup/cpu/app"));
  root.v2("/sys/fs/cgroup/unified/app", "200000 100000");
  CHECK(root.gives(2, "/sys/fs/cgroup/unified/app"));
  root.v1("/sys/fs/cgroup/cpu/app", "100000");
  CHECK(root.gives(1, "/sys/fs/cgroup/cpu/app"));
}

// --- containers

TEST(mount_root_is_stripped) {
  FakeRoot root("4:cpu,cpuacct:/docker/0af3/worker\n",
                kTmpfs + "32 31 0:29 /docker/0af3 /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n");
  root.v1("/sys/fs/cgroup/cpu,cpuacct", "200000");
  CHECK(root.gives(2, "/sys/fs/cgroup/cpu,cpuacct"));
  root.v1("/sys/fs/cgroup/cpu,cpuacct/worker", "100000");
  CHECK(root.gives(1, "/sys/fs/cgroup/cpu,cpuacct/worker"));
}

TEST(mount_root_is_stripped_at_a_whole_name_only) {
  FakeRoot root("0::/docker/0af3\n", "30 23 0:26 /docker/0a /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n");
  root.v2("/sys/fs/cgroup/f3", "100000 100000");
  root.v2("/sys/fs/cgroup", "200000 100000");
  CHECK(root.gives(2, "/sys/fs/cgroup"));
}

TEST(group_that_no_mount_shows_falls_back_to_the_mount_point) {
  for (const std::string mount_root : {"/docker/0af3", "/../..", "/.."}) {
    FakeRoot root("0::/\n", "30 23 0:26 " + mount_root + " /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n");
    root.v2("/sys/fs/cgroup", "200000 100000");
    CHECK(root.gives(2, "/sys/fs/cgroup"));
  }
}

TEST(missing_docker_path_falls_back_to_the_mount_point) {
  FakeRoot root("0::/docker/0af3\n", kV2);
  root.v2("/sys/fs/cgroup", "200000 100000");
  CHECK(root.gives(2, "/sys/fs/cgroup"));
}

TEST(path_outside_the_namespace_never_leaves_the_mount) {
  for (const std::string group : {"/..", "/../..", "/../../other", "/../other"}) {
    FakeRoot root("0::" + group + "\n", kV2);
    root.v2("/sys/fs", "100000 100000");
    root.v2("/sys/fs/other", "100000 100000");
    root.v2("/sys/fs/cgroup", "200000 100000");
    CHECK(root.gives(2, "/sys/fs/cgroup"));
  }
}

TEST(path_and_mount_root_outside_the_namespace_are_compared) {
  FakeRoot root("0::/../../other/leaf\n", "30 23 0:26 /../.. /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n");
  root.v2("/sys/fs/cgroup/other/leaf", "100000 100000");
  CHECK(root.gives(1, "/sys/fs/cgroup/other/leaf"));
}

TEST(bind_mount_of_a_foreign_group_does_not_count) {
  FakeRoot root("0::/app\n", "29 23 0:26 /foreign /mnt/foreign rw - cgroup2 cgroup2 rw\n" + kV2);
  root.v2("/mnt/foreign", "100000 100000");
  root.v2("/sys/fs/cgroup/app", "300000 100000");
  CHECK(root.gives(3, "/sys/fs/cgroup/app"));
}

TEST(octal_escapes_in_mountinfo_are_names) {
  FakeRoot root("0::/my group/back\\slash/leaf\n",
                R"(30 23 0:26 /my\040group/back\134slash /mnt/c\040g\011roup rw - cgroup2 cgroup2 rw)"
                "\n");
  root.v2("/mnt/c g\troup/leaf", "200000 100000");
  CHECK(root.gives(2, "/mnt/c g\troup/leaf"));
}

// --- garbage

TEST(garbage_v1_quota_is_no_quota) {
  for (const std::string quota : {"0", "", "two", "1e5", "100000x", "1.5", "-7", "99999999999999999999"}) {
    FakeRoot root("4:cpu,cpuacct:/\n", kV1);
    root.v1("/sys/fs/cgroup/cpu", quota);
    CHECK(!root.quota());
  }
  for (const std::string period : {"0", "", "x", "-1"}) {
    FakeRoot root("4:cpu,cpuacct:/\n", kV1);
    root.v1("/sys/fs/cgroup/cpu", "100000", period);
    CHECK(!root.quota());
  }
}

TEST(garbage_v2_quota_is_no_quota) {
  for (const std::string max : {"", "max", "100000", "0 100000", "100000 0", "-1 100000", "1 2 3", "a b", "max max"}) {
    FakeRoot root("0::/\n", kV2);
    root.v2("/sys/fs/cgroup", max);
    CHECK(!root.quota());
  }
}

TEST(garbage_quota_of_one_group_leaves_the_others) {
  FakeRoot root("0::/a/b\n", kV2);
  root.v2("/sys/fs/cgroup/a/b", "nonsense");
  root.v2("/sys/fs/cgroup/a", "200000 100000");
  CHECK(root.gives(2, "/sys/fs/cgroup/a"));
}

TEST(unreadable_quota_is_no_quota) {
  FakeRoot root("4:cpu,cpuacct:/a\n0::/a\n", kV1 + "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
  root.make_directory("/sys/fs/cgroup/unified/a/cpu.max");
  root.make_directory("/sys/fs/cgroup/cpu/a/cpu.cfs_period_us");
  root.write("/sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "100000\n");
  CHECK(!root.quota());
}

TEST(garbage_in_proc_is_no_quota) {
  for (const std::string text : {"", "\n\n", ":", "::", "0:", "0::", "no colon at all\n", "4:cpu\n", "0::relative\n"}) {
    FakeRoot root(text, kV2);
    root.v2("/sys/fs/cgroup", "max 100000");
    CHECK(!root.quota());
  }
  for (const std::string text :
       {"", "\n", " ", "-", " - ", "- cgroup2 x y", "30 23 0:26 / /sys/fs/cgroup rw - cgroup2",
        "30 23 0:26 / /sys/fs/cgroup rw", "- - - - - - - - - -", "\\04 \\ \\0409 \\999 - - -"}) {
    FakeRoot root("0::/\n", text);
    root.v2("/sys/fs/cgroup", "100000 100000");
    CHECK(!root.quota());
  }
}

TEST(missing_proc_files_are_no_quota) {
  CHECK(!read_cgroup_quota("/nonexistent/cgroup", "/nonexistent/mountinfo"));
  CHECK(!read_cgroup_quota("/", "/"));
}

// --- P

TEST(quota_is_rounded_up_to_whole_cpus) {
  const auto slots = [](double cpus) { return combine_limits(64, CpuQuota{cpus, "/g"}, {}).slots; };
  CHECK(slots(0.2) == 1);
  CHECK(slots(1.0) == 1);
  CHECK(slots(1.5) == 2);
  CHECK(slots(2.0) == 2);
  CHECK(slots(2.001) == 3);
  CHECK(slots(1e300) == 64);
}

TEST(smallest_limit_sets_p_and_is_named) {
  const auto is = [](const CpuLimits& limits, int slots, const char* source) {
    return limits.slots == slots && limits.source == source;
  };
  CHECK(is(combine_limits(4, {}, {}), 4, "affinity"));
  CHECK(is(combine_limits(4, CpuQuota{2.5, "/g"}, {}), 3, "quota"));
  CHECK(is(combine_limits(4, CpuQuota{2.5, "/g"}, 2), 2, "COMPOSABLE_NUM_THREADS"));
  CHECK(is(combine_limits(4, {}, 1), 1, "COMPOSABLE_NUM_THREADS"));
  CHECK(is(combine_limits(4, CpuQuota{8, "/g"}, 99), 4, "affinity"));
  CHECK(is(combine_limits(4, CpuQuota{3.5, "/g"}, 4), 4, "affinity"));
  CHECK(is(combine_limits(4, CpuQuota{2, "/g"}, 2), 2, "quota"));
}

TEST(limits_keep_what_was_found) {
  const CpuLimits limits = combine_limits(4, CpuQuota{8.5, "/g"}, 99);
  CHECK(limits.affinity == 4);
  CHECK(limits.quota == 8.5);
  CHECK(limits.quota_group == "/g");
  CHECK(limits.variable == 99);
  CHECK(combine_limits(4, {}, {}).quota_group.empty());
}

// --- this process

TEST(affinity_is_asked_of_libc) {
  const Variable none(nullptr);
  fake_kernel::cpus = 32;
  CHECK(read_cpu_limits().affinity == 32);
  fake_kernel::cpus = 0;
}

TEST(affinity_mask_grows_with_the_kernels) {
  const Variable none(nullptr);
  for (const int cpus : {1024, 1025, 5000, 8192}) {
    fake_kernel::cpus = cpus;
    CHECK(read_cpu_limits().affinity == cpus);
  }
  fake_kernel::cpus = 0;
}

TEST(affinity_falls_back_to_online_cpus) {
  const Variable none(nullptr);
  for (const int error : {ENOSYS, EPERM, EINVAL}) {
    fake_kernel::error = error;
    fake_kernel::calls = 0;
    CHECK(read_cpu_limits().affinity == sysconf(_SC_NPROCESSORS_ONLN));
    CHECK(fake_kernel::calls <= (error == EINVAL ? 20 : 1));
  }
  fake_kernel::error = 0;
}

TEST(variable_lowers_p) {
  fake_kernel::cpus = 4;
  for (const char* text : {"1", " 1", "1\t", "  1 \n", "01"}) {
    const Variable set(text);
    const CpuLimits limits = read_cpu_limits();
    CHECK(limits.variable == 1);
    CHECK(limits.slots == 1);
    CHECK(limits.affinity == 4);
  }
  fake_kernel::cpus = 0;
}

TEST(variable_never_raises_p) {
  const auto without = [] {
    const Variable none(nullptr);
    return read_cpu_limits();
  }();
  const Variable set("2147483647");
  const CpuLimits limits = read_cpu_limits();
  CHECK(limits.variable == 2147483647);
  CHECK(limits.slots == without.slots);
  CHECK(limits.source == without.source);
}

TEST(blank_variable_counts_as_not_set) {
  for (const char* text : {"", " ", " \t\n"}) {
    const Variable set(text);
    CHECK(!read_cpu_limits().variable);
  }
}

TEST(bad_variable_is_an_error_with_the_accepted_values) {
  for (const std::string text : {"0", "-3", "two", "1.5", "99999999999999", "+2", "0x2", "2 3", "1e1", "4,2", "-"}) {
    const Variable set(text.c_str());
    std::string message;
    try {
      read_cpu_limits();
    } catch (const std::invalid_argument& error) {
      message = error.what();
    }
    CHECK(message == "COMPOSABLE_NUM_THREADS must be a whole number of at least 1, not '" + text + "'");
  }
}

int main() { return composable::testing::run_all(); }
