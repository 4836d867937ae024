#include "workers.h"

#define TBB_PREVIEW_PARALLEL_PHASE 1
#include <oneapi/tbb/global_control.h>
#include <oneapi/tbb/task_arena.h>
#include <oneapi/tbb/version.h>

#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <deque>
#include <exception>
#include <mutex>
#include <vector>

#include <pthread.h>

#include "arena.h"
#include "lifecycle.h"
#include "spares.h"

namespace composable {

namespace {

// oneTBB keeps what it knows of a thread under a pthread key of its own. A thread of the program gets an entry when it
// first enqueues, and at exit() oneTBB's destructor takes that entry apart under a lock which, in a forked child, a
// worker that does not exist may hold. So the child's thread is made a stranger to oneTBB again, for which the key must
// be known: it is the one that got a value in the first enqueue.
class ThreadKeys {
 public:
  template <typename Call>
  void watch(Call&& call) {
    bool before[PTHREAD_KEYS_MAX];
    for (pthread_key_t key = 0; key < PTHREAD_KEYS_MAX; ++key) before[key] = pthread_getspecific(key) != nullptr;
    call();
    for (pthread_key_t key = 0; key < PTHREAD_KEYS_MAX; ++key) {
      if (!before[key] && pthread_getspecific(key) != nullptr) keys_.push_back(key);
    }
  }

  void forget() const noexcept {
    for (pthread_key_t key : keys_) pthread_setspecific(key, nullptr);
  }

 private:
  std::vector<pthread_key_t> keys_;
};

// Where workers that have just been started wait for the last one.
class Gate {
 public:
  /// True if all were started.
  bool pass() {
    std::unique_lock held(mutex_);
    opened_.wait(held, [this] { return open_; });
    return complete_;
  }
  void open(bool complete) {
    std::lock_guard held(mutex_);
    open_ = true;
    complete_ = complete;
    opened_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable opened_;
  bool open_ = false;
  bool complete_ = false;
};

constexpr char kName[] = "composable-%u";

void set_name(unsigned number) noexcept {
  char name[16];
  std::snprintf(name, sizeof name, kName, number % 10000);
  pthread_setname_np(pthread_self(), name);
}

// The kernel gives a thread the name of the one that starts it: so workers have theirs before they come here, which one
// that finds its first task taken by another does much later.
class NamesForWorkers {
 public:
  NamesForWorkers() noexcept { known_ = pthread_getname_np(pthread_self(), own_, sizeof own_) == 0; }
  ~NamesForWorkers() {
    if (known_) pthread_setname_np(pthread_self(), own_);
  }
  NamesForWorkers(const NamesForWorkers&) = delete;
  NamesForWorkers& operator=(const NamesForWorkers&) = delete;

  void next_is(int number) noexcept {
    if (known_) set_name(static_cast<unsigned>(number));
  }

 private:
  char own_[16];
  bool known_;
};

// For a worker that oneTBB had before ours were started.
void name_stranger(int slots) noexcept {
  char name[16];
  unsigned number;
  if (pthread_getname_np(pthread_self(), name, sizeof name) == 0 && std::sscanf(name, kName, &number) == 1) return;
  static std::atomic<unsigned> born{0};
  set_name(static_cast<unsigned>(slots) + born.fetch_add(1, std::memory_order_relaxed));
}

// What the program's own threads have; oneTBB's default is half of the usual, and tasks may recurse as deeply as anywhere.
std::size_t stack_size() noexcept {
  pthread_attr_t attributes;
  std::size_t size = std::size_t{8} << 20;
  if (pthread_getattr_default_np(&attributes) != 0) return size;
  pthread_attr_getstacksize(&attributes, &size);
  pthread_attr_destroy(&attributes);
  return size;
}

}  // namespace

struct Workers::Pool {
  explicit Pool(int slots)
      : stack(tbb::global_control::thread_stack_size, stack_size()),
        limit(tbb::global_control::max_allowed_parallelism, static_cast<std::size_t>(slots) + 1),
        // No slot is kept for callers: they never enter (native/README.md). Workers leave at once when the board is
        // empty, so that they do not spin against other runtimes.
        arena(slots, 0, tbb::task_arena::priority::normal, tbb::task_arena::leave_policy::fast) {}
  tbb::global_control stack;
  tbb::global_control limit;
  tbb::task_arena arena;
  std::deque<tbb::task_arena> starters;
  Gate gate;
  ThreadKeys keys;
  std::once_flag first;
};

Workers::Workers(Arena& arena, int slots) : arena_(arena), slots_(slots), pool_(std::make_unique<Pool>(slots)) {}

Workers::~Workers() = default;

bool Workers::start() {
  if (!usable()) return false;
  std::call_once(pool_->first, [this] {
    if (!start_each()) usable_.store(false, std::memory_order_relaxed);
  });
  return usable();
}

// oneTBB starts a thread when it misses one, be it in a worker of its own, where the exception that there is none to be
// had would end the process. So each is asked for here by an arena of its own, which wants one worker: oneTBB starts it
// in this thread, and the next one too as long as the first does not come back.
//
// What is enqueued carries nothing: all that a worker reads of ours comes to it through the one arena and the gate,
// whose hand-over is our own, so that ThreadSanitizer, which does not see oneTBB's, can check it.
bool Workers::start_each() {
  int started = 0;
  try {
    NamesForWorkers names;
    for (; started < slots_; ++started) {
      names.next_is(started);
      tbb::task_arena& one = pool_->starters.emplace_back(1, 0);
      const auto enqueue = [&one] { one.enqueue([] { Arena::existing()->workers_->arrive(); }); };
      if (started == 0) {
        pool_->keys.watch(enqueue);
      } else {
        enqueue();
      }
    }
  } catch (const std::exception&) {
    // What oneTBB believes of its threads is wrong from now on, so it is given nothing more.
    Lock held = arena_.lock();
    arena_.spares_->expect(started);
  }
  pool_->gate.open(started == slots_);
  return started == slots_;
}

void Workers::arrive() {
  if (!pool_->gate.pass()) arena_.spares_->adopt();
}

bool Workers::summon() {
  try {
    if (start()) {
      pool_->arena.enqueue([] { Arena::existing()->workers_->serve(); });
      return true;
    }
  } catch (const std::exception&) {  // no memory
  }
  Lock held = arena_.lock();
  --summoned;
  return false;
}

void Workers::abandon() noexcept {
  usable_.store(false, std::memory_order_relaxed);
  inside = summoned = 0;
  pool_->keys.forget();
}

void Workers::serve() {
  ThreadState& self = this_thread();
  if (!self.worker) {
    self.worker = true;
    name_stranger(slots_);
    if (Arena::hooks.started != nullptr) Arena::hooks.started();
  }
  {
    Lock held = arena_.lock();
    --summoned;
    ++inside;
  }
  Lifecycle::serve(arena_);
  Lock held = arena_.lock();
  --inside;
}

std::string Workers::version() {
  char text[64];
  const int interface = TBB_runtime_interface_version();
  std::snprintf(text, sizeof text, "%s (interface %d)", TBB_runtime_version(), interface);
  return text;
}

}  // namespace composable
