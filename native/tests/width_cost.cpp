// What a task costs the core: its start and its end, widths of BLAS and OpenMP included. For
// benchmarks/bench_width_cost.py.
//
//   width_cost alone|queued|uncounted [library...]
//
// loads the libraries, as a program would have, and prints one line of JSON: medians per task. "alone": a thread of the
// program begins and ends a task, so the load changes, and with it all widths, twice. "queued": a thread runs a queue
// empty, as a worker does. "uncounted": what "alone" costs without load and widths.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dirent.h>
#include <functional>
#include <memory>
#include <vector>

#include <dlfcn.h>
#include <sys/resource.h>

#include "../tasks.h"

using namespace composable;

namespace {

constexpr int kTasks = 20'000;
constexpr int kRounds = 15;

class Nothing final : public Task {
 public:
  void run() override {}
  void drop() noexcept override {}
};

struct Sample {
  double wall, cpu;
  long switches;
};

Sample once(const std::function<void()>& run) {
  rusage before{}, after{};
  getrusage(RUSAGE_SELF, &before);
  const auto start = std::chrono::steady_clock::now();
  run();
  const std::chrono::duration<double> wall = std::chrono::steady_clock::now() - start;
  getrusage(RUSAGE_SELF, &after);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
  };
  return {
      .wall = wall.count(),
      .cpu = seconds(after.ru_utime) + seconds(after.ru_stime) - seconds(before.ru_utime) - seconds(before.ru_stime),
      .switches = after.ru_nvcsw + after.ru_nivcsw - before.ru_nvcsw - before.ru_nivcsw};
}

void alone(Arena& arena) {
  ThreadState& self = this_thread();
  for (int i = 0; i < kTasks; ++i) ProgramTask task(arena, self);
}

void uncounted(Arena& arena) {
  ThreadState& self = this_thread();
  for (int i = 0; i < kTasks; ++i) {
    const bool entered = arena.enter(self);
    {
      Lock held = arena.lock();
      arena.task_began(held, self);
    }
    {
      Lock held = arena.lock();
      arena.task_ended(held, self);
    }
    if (entered) arena.leave(self);
  }
}

// The other permits are taken, so no worker comes to help.
class Queue {
 public:
  explicit Queue(Arena& arena)
      : arena_(arena),
        others_(static_cast<std::size_t>(arena.slots() - 1)),
        group_(std::make_shared<TaskGroup>(arena, 2)) {
    arena.enter(this_thread());
    for (ThreadState& other : others_) arena.enter(other);
  }
  void fill() {
    for (int i = 0; i < kTasks; ++i) group_->submit(&nothing_);
  }
  void run() {
    ThreadState& self = this_thread();
    Task* task = group_->claim(self);
    while (task != nullptr) {
      {
        TaskScope scope(arena_, self);
        task->run();
      }
      task = group_->next(self);
    }
    Lock held = arena_.lock();
    arena_.task_ended(held, self);
    arena_.adjust_widths(held);
  }

 private:
  Arena& arena_;
  std::vector<ThreadState> others_;
  std::shared_ptr<TaskGroup> group_;
  Nothing nothing_;
};

int count_threads() {
  int count = 0;
  if (DIR* folder = opendir("/proc/self/task")) {
    while (const dirent* entry = readdir(folder)) count += entry->d_name[0] != '.';
    closedir(folder);
  }
  return count;
}

bool load(const char* path) {
  void* handle = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
  if (handle == nullptr) {
    std::fprintf(stderr, "%s\n", dlerror());
    return false;
  }
  // MKL takes its threading layer, whose width is governed, at its first call.
  if (auto* first = reinterpret_cast<int (*)()>(dlsym(handle, "MKL_Get_Max_Threads"))) first();
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  for (int i = 2; i < argc; ++i) {
    if (!load(argv[i])) return 1;
  }
  Arena::configure(2);
  Arena& arena = Arena::instance();
  std::vector<Sample> samples;
  if (std::strcmp(argv[1], "queued") == 0) {
    Queue queue(arena);
    for (int round = 0; round <= kRounds; ++round) {
      queue.fill();
      samples.push_back(once([&] { queue.run(); }));
    }
  } else {
    const auto run = std::strcmp(argv[1], "alone") == 0 ? alone : uncounted;
    for (int round = 0; round <= kRounds; ++round) samples.push_back(once([&] { run(arena); }));
  }
  samples.erase(samples.begin());  // the first one finds the libraries
  std::sort(samples.begin(), samples.end(),
            [](const Sample& one, const Sample& other) { return one.wall < other.wall; });
  const Sample& median = samples[samples.size() / 2];
  std::printf("{\"wall_s\": %.3e, \"cpu_s\": %.3e, \"switches\": %ld, \"threads\": %d, \"libraries\": %zu}\n",
              median.wall / kTasks, median.cpu / kTasks, median.switches, count_threads(),
              Libraries::instance().process_wide().size() + Libraries::instance().per_thread().size());
  std::fflush(stdout);
  std::_Exit(0);
}
