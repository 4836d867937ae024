#include "workers.h"

#define TBB_PREVIEW_PARALLEL_PHASE 1
#include <oneapi/tbb/global_control.h>
#include <oneapi/tbb/task_arena.h>
#include <oneapi/tbb/version.h>

#include <atomic>
#include <cstdio>

#include <pthread.h>

#include "arena.h"

namespace composable {

struct Workers::Pool {
  explicit Pool(int slots)
      : limit(tbb::global_control::max_allowed_parallelism, static_cast<std::size_t>(slots) + 1),
        // No slot is kept for callers: they never enter (native/README.md). Workers leave at once when the board is
        // empty, so that they do not spin against other runtimes.
        arena(slots, 0, tbb::task_arena::priority::normal, tbb::task_arena::leave_policy::fast) {}
  tbb::global_control limit;
  tbb::task_arena arena;
};

Workers::Workers(Arena& arena, int slots)
    : arena_(arena), slots_(slots), pool_(std::make_unique<Pool>(slots)) {}

Workers::~Workers() = default;

void Workers::summon() {
  pool_->arena.enqueue([this] {
    ThreadState& self = this_thread();
    if (!self.worker) {
      self.worker = true;
      static std::atomic<int> born{0};
      char name[16];
      std::snprintf(name, sizeof name, "composable-%d", born.fetch_add(1));
      pthread_setname_np(pthread_self(), name);
      if (Arena::hooks.started != nullptr) Arena::hooks.started();
    }
    {
      Lock held = arena_.lock();
      --summoned;
      ++inside;
    }
    arena_.serve(self);
    Lock held = arena_.lock();
    --inside;
  });
}

std::string Workers::version() {
  char text[64];
  const int interface = TBB_runtime_interface_version();
  std::snprintf(text, sizeof text, "%s (interface %d)", TBB_runtime_version(), interface);
  return text;
}

}  // namespace composable
