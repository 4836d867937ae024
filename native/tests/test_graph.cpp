// Graph: which node is next, what is released when. No threads but in the last test.
#include "../graph.h"

#include <algorithm>
#include <atomic>
#include <thread>

#include "check.h"

using namespace composable;
using Kind = Graph::Kind;
using Node = Graph::Node;

namespace {

Graph::Lists lists(const Array<Array<Node>>& rows) {
  Graph::Lists made;
  for (const auto& row : rows) {
    made.nodes.insert(made.nodes.end(), row.begin(), row.end());
    made.close();
  }
  return made;
}

struct Made {
  explicit Made(const Array<Array<Node>>& rows, Array<std::int64_t> priorities, Array<Node> wanted,
                Array<Kind> kinds = {})
      : graph(lists(rows), kinds.empty() ? Array<Kind>(rows.size(), Kind::task) : kinds, priorities, wanted) {}
  Graph graph;

  /// Runs all with one thread; the order, and what was released after each.
  Array<Node> run() {
    Array<Node> order;
    for (Node node; (node = graph.take()) >= 0;) {
      order.push_back(node);
      released.push_back(graph.finish(node).released);
    }
    return order;
  }
  Array<Array<Node>> released;
};

Array<std::int64_t> rising(std::size_t count) {
  Array<std::int64_t> priorities(count);
  for (std::size_t i = 0; i < count; ++i) priorities[i] = static_cast<std::int64_t>(i);
  return priorities;
}

}  // namespace

TEST(empty_graph_is_complete) {
  Made made({}, {}, {});
  CHECK(made.graph.complete());
  CHECK(made.graph.accessible());
  CHECK(made.graph.take() == -1);
}

TEST(take_tells_what_would_follow) {
  Made made({{}, {}, {}, {0, 1}}, rising(4), {2, 3});
  Node coming[2];
  CHECK(made.graph.take(coming) == 0);
  CHECK(coming[0] == 1);
  CHECK(coming[1] == 2);
  CHECK(made.graph.take(coming) == 1);
  CHECK(coming[0] == 2);
  CHECK(coming[1] == -1);
}

TEST(finish_tells_what_became_ready_and_what_waits_for_one_more) {
  Made made({{}, {}, {0, 1}, {1}}, rising(4), {2, 3});
  const Graph::Outcome first = made.graph.finish(made.graph.take());
  CHECK(first.ready == 0);
  CHECK(first.nearly == 2);
  CHECK(first.released == Array<Node>{});
  const Graph::Outcome second = made.graph.finish(made.graph.take());
  CHECK(second.ready == 2);
  CHECK(second.nearly == -1);
}

TEST(priorities_need_not_be_places) {
  Made made({{}, {}, {}}, {7, -2, 7}, {0, 1, 2});
  const Array<Node> order = made.run();
  CHECK(order[0] == 1);
  CHECK(order.size() == 3);
}

TEST(lowest_priority_number_is_taken_first) {
  Made made({{}, {}, {}}, {2, 0, 1}, {0, 1, 2});
  CHECK(made.run() == Array<Node>{1, 2, 0});
  CHECK(made.graph.complete());
}

TEST(what_became_ready_last_is_taken_first) {
  // 0 makes 2 and 3 ready, which go before 1 although its number is lower than theirs.
  Made made({{}, {}, {0}, {0}}, {0, 1, 3, 2}, {1, 2, 3});
  CHECK(made.run() == Array<Node>{0, 3, 2, 1});
}

TEST(values_are_released_after_their_last_use_and_wanted_ones_never) {
  Made made({{}, {0}, {0, 1}, {2}}, rising(4), {1, 3});
  CHECK(made.run() == Array<Node>{0, 1, 2, 3});
  CHECK(made.released[0].empty());
  CHECK(made.released[1].empty());
  CHECK(made.released[2] == Array<Node>{0});  // 1 is wanted
  CHECK(made.released[3] == Array<Node>{2});
}

TEST(data_is_there_from_the_start_and_released_like_the_rest) {
  Made made({{}, {0}}, rising(2), {1}, {Kind::data, Kind::task});
  CHECK(made.graph.ready() == 1);
  CHECK(made.run() == Array<Node>{1});
  CHECK(made.released[0] == Array<Node>{0});
}

TEST(only_what_is_wanted_is_run) {
  Made made({{}, {0}, {}, {2}}, rising(4), {1});
  CHECK(made.run() == Array<Node>{0, 1});
  CHECK(made.graph.complete());
}

TEST(a_missing_node_is_told_only_if_it_is_needed) {
  CHECK(Made({{}, {0}, {}}, rising(3), {1}, {Kind::missing, Kind::task, Kind::task}).graph.missing() == 0);
  CHECK(Made({{}, {0}, {}}, rising(3), {2}, {Kind::missing, Kind::task, Kind::task}).graph.missing() == -1);
}

TEST(a_cycle_is_not_accessible) {
  Made made({{1}, {0}}, rising(2), {0});
  CHECK(!made.graph.accessible());
  CHECK(!made.graph.complete());
}

TEST(after_a_stop_nothing_is_taken_and_late_ends_change_nothing) {
  Made made({{}, {}, {0}}, rising(3), {1, 2});
  const Node running = made.graph.take();
  CHECK(made.graph.stop());
  CHECK(!made.graph.stop());
  CHECK(made.graph.take() == -1);
  const Graph::Outcome outcome = made.graph.finish(running);
  CHECK(outcome.ready == 0);
  CHECK(outcome.released.empty());
  CHECK(!made.graph.complete());
  CHECK(made.graph.stopped());
}

TEST(a_deep_chain_needs_no_stack) {
  Array<Array<Node>> rows(1);
  for (Node i = 1; i < 200'000; ++i) rows.push_back({i - 1});
  Made made(rows, rising(rows.size()), {199'999});
  CHECK(made.run().size() == rows.size());
}

TEST(threads_run_every_node_once_and_after_its_dependencies) {
  constexpr Node kLayers = 60, kWidth = 40;
  Array<Array<Node>> rows;
  for (Node layer = 0; layer < kLayers; ++layer) {
    for (Node i = 0; i < kWidth; ++i) {
      rows.emplace_back();
      if (layer == 0) continue;
      const Node before = (layer - 1) * kWidth;
      rows.back() = {before + i, before + (i * 7 + layer) % kWidth};
      if (rows.back()[0] == rows.back()[1]) rows.back().pop_back();
    }
  }
  Array<Node> wanted;
  for (Node i = 0; i < kWidth; ++i) wanted.push_back((kLayers - 1) * kWidth + i);
  Made made(rows, rising(rows.size()), wanted);
  Array<std::atomic<int>> runs(rows.size());
  std::atomic<int> released_all{0}, early{0};
  Array<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      while (!made.graph.complete()) {
        const Node node = made.graph.take();
        if (node < 0) {
          std::this_thread::yield();
          continue;
        }
        for (Node needed : rows[static_cast<std::size_t>(node)]) {
          if (runs[static_cast<std::size_t>(needed)].load() != 1) early.fetch_add(1);
        }
        runs[static_cast<std::size_t>(node)].fetch_add(1);
        released_all.fetch_add(static_cast<int>(made.graph.finish(node).released.size()));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(early.load() == 0);
  int needed = 0;
  for (const auto& count : runs) {
    CHECK(count.load() <= 1);
    needed += count.load();
  }
  CHECK(released_all.load() == needed - kWidth);
}

int main() { return composable::testing::run_all(); }
