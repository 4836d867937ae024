// order() as a whole. Parity with Dask is tested from Python (tests/test_dask_order.py); here are shapes whose order is
// known, sizes that nothing quadratic would finish, and what is refused.
#include "order.h"

#include <algorithm>
#include <numeric>

#include "check.h"
#include "order_graphs.h"

using namespace composable;
using namespace composable::testing;

namespace {

using Priorities = Array<std::int64_t>;

Priorities order(const Rows& rows) {
  Digits texts(rows.size());
  return composable::order(Flat(rows).graph(), texts);
}

bool is_permutation(Priorities priorities) {
  std::sort(priorities.begin(), priorities.end());
  for (std::size_t i = 0; i < priorities.size(); ++i) {
    if (priorities[i] != static_cast<std::int64_t>(i)) return false;
  }
  return true;
}

bool is_topological(const Rows& rows, const Priorities& priorities) {
  for (std::size_t i = 0; i < rows.size(); ++i) {
    for (const std::int32_t dep : rows[i]) {
      if (priorities[static_cast<std::size_t>(dep)] >= priorities[i]) return false;
    }
  }
  return true;
}

void check_valid(const Rows& rows) {
  const Priorities priorities = order(rows);
  CHECK(priorities.size() == rows.size());
  CHECK(is_permutation(priorities));
  CHECK(is_topological(rows, priorities));
}

// Results held at once at worst if one task runs after the other, each result dropped with its last use.
int most_held(const Rows& rows, const Priorities& priorities) {
  Array<std::size_t> sequence(rows.size());
  Array<int> uses(rows.size(), 0);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    sequence[static_cast<std::size_t>(priorities[i])] = i;
    for (const std::int32_t dep : rows[i]) ++uses[static_cast<std::size_t>(dep)];
  }
  int held = 0, most = 0;
  for (const std::size_t node : sequence) {
    most = std::max(most, held);
    if (uses[node] > 0) ++held;
    for (const std::int32_t dep : rows[node]) held -= --uses[static_cast<std::size_t>(dep)] == 0;
  }
  return most;
}

template <typename Error>
bool throws(const OrderGraph& graph) {
  Digits texts(100);
  try {
    composable::order(graph, texts);
  } catch (const Error&) {
    return true;
  }
  return false;
}

bool has_cycle(const Rows& rows) { return throws<CycleError>(Flat(rows).graph()); }

}  // namespace

TEST(nothing_and_one_node) {
  CHECK(order({}).empty());
  CHECK(order({{}}) == Priorities{0});
}

TEST(a_chain_runs_from_its_root_whatever_its_numbers) {
  CHECK(order(chain(5)) == (Priorities{0, 1, 2, 3, 4}));
  CHECK(order({{1}, {2}, {3}, {}}) == (Priorities{3, 2, 1, 0}));
}

TEST(equal_tasks_of_one_sum_run_by_text_last_one_first) {
  CHECK(order({{}, {}, {}, {}, {0, 1, 2, 3}}) == (Priorities{3, 2, 1, 0, 4}));
}

TEST(texts_compare_as_unsigned_bytes_and_shorter_first) {
  class Texts final : public KeyTexts {
   public:
    std::string_view text(std::int32_t node) override { return texts_[node]; }

   private:
    // In common: "x"; then ends, control, ASCII, more than eight bytes alike, and beyond ASCII.
    std::string_view texts_[7] = {"x\xC3\xA9", "xb", "x", "xaaaaaaaab", "xaaaaaaaaa", "xaaaaaaa", "x\x01"};
  } texts;
  const Flat flat({{}, {}, {}, {}, {}, {}, {}});
  CHECK(composable::order(flat.graph(), texts) == (Priorities{0, 1, 6, 2, 3, 4, 5}));
}

TEST(keys_of_one_text_keep_the_order_of_their_numbers) {
  class Same final : public KeyTexts {
   public:
    std::string_view text(std::int32_t) override { return {}; }
  } texts;
  const Flat two({{}, {}, {0, 1}}), five({{}, {}, {}, {}, {}});
  CHECK(composable::order(two.graph(), texts) == (Priorities{1, 0, 2}));
  CHECK(composable::order(five.graph(), texts) == (Priorities{4, 3, 2, 1, 0}));
}

TEST(a_tree_is_summed_depth_first) {
  for (const std::int32_t height : {1, 2, 5, 10}) {
    const Rows rows = tree(1 << height);
    check_valid(rows);
    CHECK(most_held(rows, order(rows)) == height + 1);
  }
}

TEST(chains_are_run_one_after_the_other) {
  const Rows rows = map_of(50, 20);
  check_valid(rows);
  CHECK(most_held(rows, order(rows)) == 1);
}

TEST(a_map_with_a_shared_operand_holds_that_and_one_more) {
  Rows rows = map_of(100, 1);
  for (std::int32_t i = 0; i < 99; ++i) rows.push_back({99, i});
  check_valid(rows);
  CHECK(most_held(rows, order(rows)) == 2);
}

TEST(cycles_are_found_wherever_they_are) {
  CHECK(has_cycle({{0}}));
  CHECK(has_cycle({{1}, {2}, {0}}));
  CHECK(has_cycle({{}, {0, 2}, {1}}));           // after a root, no leaf
  CHECK(has_cycle({{1}, {0}, {0}}));             // before a leaf, no root
  CHECK(has_cycle({{}, {0, 2}, {1}, {2}, {}}));  // between both, next to a node of its own
  CHECK(!has_cycle({{}, {0}, {0, 1}, {2, 1, 0}}));
}

TEST(a_dependency_named_twice_counts_once) { CHECK(order({{}, {0, 0}, {1, 0, 1}}) == (Priorities{0, 1, 2})); }

TEST(random_graphs_are_ordered_from_roots_to_leaves) {
  std::mt19937 random(5);
  for (int i = 0; i < 300; ++i) {
    const auto size = 1 + static_cast<std::int32_t>(random() % 200);
    check_valid(random_rows(random, size, 1 + static_cast<std::int32_t>(random() % 60)));
  }
}

TEST(the_answer_does_not_depend_on_the_order_of_dependencies) {
  std::mt19937 random(6);
  for (int i = 0; i < 100; ++i) {
    Rows rows = random_rows(random, 100, 20);
    const Priorities priorities = order(rows);
    for (auto& row : rows) std::shuffle(row.begin(), row.end(), random);
    CHECK(order(rows) == priorities);
  }
}

TEST(data_of_several_tasks_comes_with_the_first_of_them) {
  // 0 is data for 3 and 4, which also need 1 and 2; 5 needs both.
  Flat flat({{}, {}, {}, {0, 1}, {0, 2}, {3, 4}});
  flat.is_task[0] = 0;
  Digits texts(6);
  CHECK(composable::order(flat.graph(), texts) == (Priorities{1, 3, 0, 4, 2, 5}));
}

TEST(external_keys_get_no_priority_and_take_none) {
  const Flat flat({{3}, {3, 4}, {0, 1}});
  Digits texts(5);
  CHECK(composable::order(flat.graph(), texts) == (Priorities{1, 0, 2}));
}

TEST(leaves_that_are_no_tasks_come_last) {
  Flat flat({{}, {}, {}, {0, 1, 2}, {0}});
  flat.is_task[3] = 0;
  Digits texts(5);
  const Priorities priorities = composable::order(flat.graph(), texts);
  CHECK(priorities[3] == 4);
  CHECK(is_permutation(priorities));
}

TEST(data_that_only_removed_leaves_use_is_not_forgotten) {
  // 4 is removed, then 2 and 3; the data had gone with them.
  Flat flat({{}, {}, {0, 1}, {0, 1}, {2, 3}});
  std::fill(flat.is_task.begin(), flat.is_task.end(), std::uint8_t{0});
  Digits texts(5);
  const Priorities priorities = composable::order(flat.graph(), texts);
  CHECK(std::all_of(priorities.begin(), priorities.end(), [](std::int64_t each) { return each >= 0; }));
}

TEST(texts_are_asked_for_when_everything_else_is_equal_and_once) {
  Digits none(1000);
  composable::order(Flat(chain(1000)).graph(), none);
  CHECK(none.asked == 0);
  const Rows rows = tree(512);
  Digits some(rows.size());
  composable::order(Flat(rows).graph(), some);
  CHECK(some.asked > 0 && some.asked <= rows.size());
  CHECK(!some.repeated);
}

TEST(an_error_from_a_text_comes_out) {
  class Broken final : public KeyTexts {
   public:
    std::string_view text(std::int32_t) override { throw std::length_error("no text"); }
  } texts;
  const Flat flat({{}, {}, {0, 1}});
  bool raised = false;
  try {
    composable::order(flat.graph(), texts);
  } catch (const std::length_error&) {
    raised = true;
  }
  CHECK(raised);
}

TEST(malformed_graphs_are_refused) {
  const Array<std::uint8_t> tasks{1, 1};
  const auto refused = [&](Array<std::int32_t> offsets, Array<std::int32_t> targets) {
    return throws<std::invalid_argument>({offsets, targets, tasks});
  };
  CHECK(refused({}, {}));
  CHECK(refused({0, 1}, {1}));
  CHECK(refused({0, 1, 3}, {1, 1}));
  CHECK(refused({1, 1, 2}, {1, 1}));
  CHECK(refused({0, 2, 1}, {1}));
  CHECK(refused({0, 1, 1}, {-1}));
  CHECK(refused({0, 1, 1}, {100}));  // external keys would be 2, 3...
  CHECK(!refused({0, 1, 1}, {2}));
}

// Each of these would take minutes to hours, and some of them all memory, were any part of it quadratic.

TEST(a_million_in_a_chain) { check_valid(chain(1'000'000)); }

TEST(large_maps_and_sums) {
  check_valid(map_of(100'000, 3));
  check_valid(tree(1 << 18));
  Rows wide = map_of(200'000, 1);
  wide.emplace_back(200'000);
  std::iota(wide.back().begin(), wide.back().end(), 0);
  check_valid(wide);
}

TEST(maps_on_both_sides_of_a_barrier) {
  Rows rows = map_of(100'000, 1);
  rows.emplace_back(100'000);
  std::iota(rows.back().begin(), rows.back().end(), 0);
  for (int i = 0; i < 100'000; ++i) rows.push_back({100'000});
  check_valid(rows);
}

TEST(many_leaves_that_share_an_operand) {
  Rows rows = map_of(100'001, 1);
  for (std::int32_t i = 0; i < 100'000; ++i) rows.push_back({100'000, i});
  check_valid(rows);
}

TEST(a_running_sum_with_a_leaf_at_each_step) {
  Rows rows = map_of(100'000, 2);
  for (std::int32_t i = 100'001; i < 200'000; ++i) rows[static_cast<std::size_t>(i)].push_back(i - 1);
  for (std::int32_t i = 100'000; i < 200'000; ++i) rows.push_back({i});
  check_valid(rows);
}

TEST(a_comb_whose_branches_share_a_long_path) {
  Rows rows = chain(200'000);
  for (std::int32_t i = 0; i < 200'000; ++i) rows.push_back({i});
  check_valid(rows);
}

TEST(everything_depends_on_everything_before) {
  Rows rows = map_of(700, 1);
  for (int layer = 0; layer < 2; ++layer) {
    for (int i = 0; i < 700; ++i) {
      rows.emplace_back(700);
      std::iota(rows.back().begin(), rows.back().end(), 700 * layer);
    }
  }
  check_valid(rows);
}

TEST(sums_of_dependencies_beyond_any_integer) { check_valid(diamonds(5'000)); }

int main() { return run_all(); }
