// Recordings: what is in them and what is not, small regions as one span, the budget, one after another, forks.
#include "../trace.h"

#include <algorithm>
#include <atomic>
#include <stdexcept>
#include <thread>
#include <vector>

#include "../region.h"
#include "../runnable.h"
#include "groups.h"

using namespace composable;
using namespace composable::testing;

namespace {

constexpr std::size_t kMany = 1 << 16;

/// A region with a number, whose blocks of one item each take `each`.
void run_region(std::uintptr_t body_id, std::size_t items, int width, std::chrono::microseconds each) {
  static std::atomic<std::int64_t> us;
  us = each.count();
  Region::run(
      Arena::instance(), this_thread(), {.items = items, .width = width, .fixed = 1, .body_id = body_id},
      [](void*, std::size_t, std::size_t, int, ThreadState&) {
        spin(std::chrono::microseconds(us));
        return true;
      },
      nullptr);
}

std::vector<trace::Span> spans_of(trace::Kind kind) {
  std::vector<trace::Span> found;
  for (const trace::Record& record : trace::collect()) {
    std::copy_if(record.spans.begin(), record.spans.end(), std::back_inserter(found),
                 [&](const trace::Span& span) { return span.kind == kind; });
  }
  return found;
}

std::uint64_t dropped() {
  std::uint64_t count = 0;
  for (const trace::Record& record : trace::collect()) count += record.dropped;
  return count;
}

/// A test in which recordings are made; nothing is left of them.
struct Recorded : GroupsAtRest {
  ~Recorded() {
    trace::stop();
    trace::forget();
    CHECK(trace::collect().empty());
  }
};

}  // namespace

TEST(a_region_is_a_span_on_its_caller_and_one_on_each_helper) {
  Recorded rest;
  trace::start(kMany);
  run_region(0x70, 200, rest.slots, 100us);
  trace::stop();
  const auto regions = spans_of(trace::Kind::region);
  if (!CHECK(regions.size() == 1)) return;
  CHECK(regions[0].what == 0x70 && regions[0].count == 1 && regions[0].begin < regions[0].end);
  const trace::Times times = trace::times();
  CHECK(times.begin <= regions[0].begin && regions[0].end <= times.end);
  for (const trace::Span& part : spans_of(trace::Kind::runner)) {
    CHECK(rest.slots > 1 && part.what == 0x70 && part.begin <= part.end && part.begin >= regions[0].begin);
  }
}

TEST(what_began_before_the_recording_or_ends_after_it_is_not_in_it) {
  Recorded rest;
  run_region(0x71, 10, 1, 1us);
  trace::start(kMany);
  const std::uint32_t first = trace::session();
  {
    const trace::Scope over(this_thread(), trace::Kind::wait, 0);
    trace::stop();
  }
  CHECK(trace::collect().empty());
  trace::forget();
  trace::start(kMany);
  trace::record(this_thread(), first,
                {.begin = 1, .end = 2, .what = 0, .count = 1, .width = 1, .kind = trace::Kind::wait});
  CHECK(spans_of(trace::Kind::wait).empty());
}

TEST(small_regions_that_follow_each_other_are_one_span) {
  Recorded rest;
  trace::start(kMany);
  for (int i = 0; i < 1000; ++i) run_region(0x72, 1, 1, 0us);
  run_region(0x73, 1, 1, 0us);
  run_region(0x72, 1, 1, 3000us);
  trace::stop();
  // An interruption of the machine's may part them; their count stays.
  const auto regions = spans_of(trace::Kind::region);
  CHECK(regions.size() < 200);
  std::uint64_t of_first = 0, of_second = 0, longest = 0;
  for (const trace::Span& span : regions) {
    (span.what == 0x72 ? of_first : of_second) += span.count;
    if (span.end - span.begin > 3000 * 500) longest += span.count;
  }
  CHECK(of_first == 1001 && of_second == 1 && longest >= 1);
}

TEST(a_full_recording_counts_what_it_drops) {
  Recorded rest;
  trace::start(100);
  for (int i = 0; i < 150; ++i) {
    const trace::Scope span(this_thread(), trace::Kind::wait, 0);
  }
  std::thread([] { const trace::Scope span(this_thread(), trace::Kind::wait, 0); }).join();
  trace::stop();
  CHECK(spans_of(trace::Kind::wait).size() == 100 && dropped() == 51);
  const auto records = trace::collect();
  CHECK(std::all_of(records.begin(), records.end(), [](const trace::Record& record) {
    return record.dropped > 0 && record.dropped_at >= trace::times().begin && record.dropped_at <= trace::times().end;
  }));
}

TEST(recordings_follow_each_other_and_do_not_overlap) {
  Recorded rest;
  for (int round = 1; round <= 3; ++round) {
    trace::start(kMany);
    bool refused = false;
    try {
      trace::start(kMany);
    } catch (const std::logic_error&) {
      refused = true;
    }
    CHECK(refused && trace::on());
    for (int i = 0; i < round; ++i) {
      const trace::Scope span(this_thread(), trace::Kind::wait, 0);
    }
    trace::stop();
    CHECK(static_cast<int>(spans_of(trace::Kind::wait).size()) == round);
    trace::forget();
    CHECK(trace::collect().empty());
  }
}

TEST(threads_that_come_and_go_share_buffers_between_recordings_but_not_within_one) {
  Recorded rest;
  for (int round = 0; round < 5; ++round) {
    trace::start(kMany);
    for (int i = 0; i < 8; ++i) {
      std::thread([] { const trace::Scope span(this_thread(), trace::Kind::wait, 0); }).join();
    }
    trace::stop();
    const auto records = trace::collect();
    CHECK(records.size() == 8);
    CHECK(std::all_of(records.begin(), records.end(),
                      [](const trace::Record& record) { return record.spans.size() == 1; }));
    trace::forget();
  }
}

TEST(many_threads_record_while_others_read_and_sessions_change) {
  Recorded rest;
  std::atomic<bool> over{false};
  std::vector<std::thread> writers;
  for (int i = 0; i < 4; ++i) {
    writers.emplace_back([&] {
      while (!over) {
        const trace::Scope outer(this_thread(), trace::Kind::task, 7);
        for (int j = 0; j < 20; ++j) run_region(0x74, 1, 1, 0us);
      }
    });
  }
  for (int round = 0; round < 40; ++round) {
    trace::start(2000);
    for (int look = 0; look < 5; ++look) {
      for (const trace::Record& record : trace::collect()) {
        for (const trace::Span& span : record.spans) CHECK(span.what == 7 || span.what == 0x74);
      }
      std::this_thread::sleep_for(200us);
    }
    trace::stop();
    trace::forget();
  }
  over = true;
  for (std::thread& writer : writers) writer.join();
}

TEST(a_child_records_nothing_until_it_starts_a_recording_of_its_own) {
  Recorded rest;
  trace::start(kMany);
  {
    const trace::Scope span(this_thread(), trace::Kind::wait, 0);
  }
  check_in_child([] {
    CHECK(!trace::on() && trace::collect().empty());
    trace::start(kMany);
    {
      const trace::Scope span(this_thread(), trace::Kind::wait, 1);
    }
    trace::stop();
    const auto waits = spans_of(trace::Kind::wait);
    CHECK(waits.size() == 1 && waits[0].what == 1);
  });
  trace::stop();
  CHECK(spans_of(trace::Kind::wait).size() == 1);
}

TEST(a_thread_that_spins_is_seen_running) {
  Recorded rest;
  if (!RunnableWatch::start()) return;  // a kernel without schedstat
  std::atomic<bool> over{false};
  std::thread busy([&] {
    while (!over) spin(50us);
  });
  CHECK(eventually([] {
    const auto samples = RunnableWatch::samples();
    return std::any_of(samples.begin(), samples.end(),
                       [](const auto& one) { return one.running + one.waiting > 0.5f && one.threads >= 2; });
  }));
  over = true;
  busy.join();
  check_in_child([] { CHECK(RunnableWatch::samples().empty() && RunnableWatch::start()); });
  RunnableWatch::stop();
}

int main(int argc, char** argv) { return run_with_slots(argc, argv); }
