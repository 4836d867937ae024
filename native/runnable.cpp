#include "runnable.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <system_error>
#include <thread>

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include "ticks.h"

namespace composable {
namespace {

constexpr double kLookUs = 20'000;
// A look may take this part of the time between two.
constexpr double kLookShare = 1.0 / 300;
// So many samples are kept; then two become one, again and again.
constexpr std::size_t kMost = 8192;

struct Account {
  std::uint64_t ran, waited;  // ns
};

bool read_account(const char* tid, Account& account) noexcept {
  char path[64];
  std::snprintf(path, sizeof path, "/proc/self/task/%.20s/schedstat", tid);
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return false;
  char text[96];
  const ssize_t size = read(file, text, sizeof text - 1);
  close(file);
  if (size <= 0) return false;
  text[size] = '\0';
  char* end = nullptr;
  account.ran = std::strtoull(text, &end, 10);
  account.waited = std::strtoull(end, nullptr, 10);
  return true;
}

// Never destroyed: the thread may outlive main().
struct Watch {
  std::mutex mutex;
  std::condition_variable wakes;
  bool on = false;
  std::uint64_t run = 0;  // which start() the thread belongs to
  std::vector<RunnableWatch::Sample> samples;
};
Watch* watch = new Watch;

class Looker {
 public:
  RunnableWatch::Sample look() {
    RunnableWatch::Sample sample{ticks(), 0, 0, 0};
    std::map<pid_t, Account> now;
    std::uint64_t ran = 0, waited = 0;
    if (DIR* folder = opendir("/proc/self/task")) {
      while (const dirent* entry = readdir(folder)) {
        const auto tid = static_cast<pid_t>(std::atoi(entry->d_name));
        Account account;
        if (tid <= 0 || tid == own_ || !read_account(entry->d_name, account)) continue;
        ++sample.threads;
        now.emplace(tid, account);
        const auto before = known_.find(tid);
        if (before == known_.end() && last_ == 0) continue;  // what it did before the first look
        const Account old = before != known_.end() ? before->second : Account{0, 0};
        ran += account.ran - std::min(account.ran, old.ran);
        waited += account.waited - std::min(account.waited, old.waited);
      }
      closedir(folder);
    }
    if (last_ != 0) {
      const double ns = static_cast<double>(sample.at - last_) / ticks_per_us() * 1000;
      sample.running = static_cast<float>(static_cast<double>(ran) / ns);
      sample.waiting = static_cast<float>(static_cast<double>(waited) / ns);
    }
    last_ = sample.at;
    known_.swap(now);
    return sample;
  }

 private:
  const pid_t own_ = gettid();
  std::map<pid_t, Account> known_;
  std::uint64_t last_ = 0;
};

// Two neighbours become one of their time together.
void halve(std::vector<RunnableWatch::Sample>& samples) {
  std::size_t kept = 1;  // the first is where it began
  for (std::size_t i = 1; i + 1 < samples.size(); i += 2) {
    const auto &a = samples[i], &b = samples[i + 1];
    const auto of_a = static_cast<float>(a.at - samples[i - 1].at), of_b = static_cast<float>(b.at - a.at);
    samples[kept++] = {b.at, (a.running * of_a + b.running * of_b) / (of_a + of_b),
                       (a.waiting * of_a + b.waiting * of_b) / (of_a + of_b), std::max(a.threads, b.threads)};
  }
  samples.resize(kept);
}

void run(std::uint64_t number) {
  pthread_setname_np(pthread_self(), "composable-see");
  Looker looker;
  double pause_us = kLookUs;
  std::unique_lock held(watch->mutex);
  while (watch->on && watch->run == number) {
    held.unlock();
    const std::uint64_t began = ticks();
    const RunnableWatch::Sample sample = looker.look();
    const double took_us = static_cast<double>(ticks() - began) / ticks_per_us();
    pause_us = std::max(pause_us, took_us / kLookShare);
    held.lock();
    if (!watch->on || watch->run != number) return;
    watch->samples.push_back(sample);
    if (watch->samples.size() >= kMost) {
      halve(watch->samples);
      pause_us *= 2;
    }
    watch->wakes.wait_for(held, std::chrono::duration<double, std::micro>(pause_us));
  }
}

}  // namespace

bool RunnableWatch::start() {
  Account account;
  char tid[16];
  std::snprintf(tid, sizeof tid, "%d", gettid());
  if (!read_account(tid, account)) return false;
  std::lock_guard held(watch->mutex);
  watch->samples.clear();
  watch->on = true;
  try {
    std::thread(run, ++watch->run).detach();
  } catch (const std::system_error&) {
    watch->on = false;
  }
  return watch->on;
}

void RunnableWatch::stop() noexcept {
  std::lock_guard held(watch->mutex);
  watch->on = false;
  watch->wakes.notify_all();
}

std::vector<RunnableWatch::Sample> RunnableWatch::samples() {
  std::lock_guard held(watch->mutex);
  return watch->samples;
}

void RunnableWatch::before_fork() noexcept { watch->mutex.lock(); }
void RunnableWatch::after_fork_in_parent() noexcept { watch->mutex.unlock(); }

// The old one is leaked: its condition variable may have had a sleeper.
void RunnableWatch::after_fork_in_child() noexcept { watch = new Watch; }

}  // namespace composable
