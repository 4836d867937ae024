// The parts of the ordering that are cleverer than what Dask does, against plain versions of the same.
#include <algorithm>
#include <set>

#include "check.h"
#include "order_graphs.h"
#include "order_keys.h"
#include "order_leaves.h"
#include "order_paths.h"
#include "order_sets.h"

using namespace composable;
using namespace composable::ordering;
using namespace composable::testing;

namespace {

struct Made {
  explicit Made(const Rows& rows) : flat(rows), graph(flat.graph(), priorities) {}
  Flat flat;
  Array<std::int64_t> priorities;
  Graph graph;
};

// By node: the roots it depends on; a root is its own.
Array<std::set<Node>> roots_of(const Graph& graph) {
  Array<std::set<Node>> roots(at(graph.size));
  for (const Node node : graph.postorder) {
    if (graph.dependencies[node].empty()) roots[at(node)].insert(node);
    for (const Node dep : graph.dependencies[node]) {
      roots[at(node)].insert(roots[at(dep)].begin(), roots[at(dep)].end());
    }
  }
  return roots;
}

void check_sets(const Rows& rows) {
  const Made made(rows);
  const ConnectedSets sets(made.graph.dependencies, made.graph.postorder, made.graph.size);
  const auto expected = roots_of(made.graph);
  Array<Node> numbered(at(made.graph.size), -1);
  for (const Node root : made.graph.roots) numbered[at(sets.ends(root)[0].begin)] = root;
  bool same = true;
  for (const Node node : made.graph.postorder) {
    std::set<Node> found;
    std::int32_t before = -1;
    for (const Interval interval : sets.ends(node)) {
      same = same && before < interval.begin && interval.begin < interval.end;
      before = interval.end;
      for (std::int32_t i = interval.begin; i < interval.end; ++i) found.insert(numbered[at(i)]);
    }
    same = same && found == expected[at(node)] && sets.count(node) == static_cast<std::int32_t>(found.size());
  }
  CHECK(same);
}

// What Dask's get_target does: the fewest roots missing, then touched, then rank.
struct PlainDegrees {
  struct Leaf {
    std::int32_t degree, rank;
    bool touched;
  };
  Array<Leaf> leaves;

  std::int32_t best() const {
    std::int32_t lowest = 1 << 30, rank = -1;
    bool touched = false;
    for (const Leaf& leaf : leaves) {
      if (leaf.degree == 0 || leaf.degree > lowest) continue;
      if (leaf.degree < lowest || (leaf.touched && !touched) || (leaf.touched == touched && leaf.rank < rank)) {
        lowest = leaf.degree, rank = leaf.rank, touched = leaf.touched;
      }
    }
    return rank;
  }
};

// Roots done in any order, `together` at a time, with a question after each lot.
void check_degrees(const Rows& rows, std::size_t together, std::mt19937& random) {
  const Made made(rows);
  const Graph& graph = made.graph;
  const Array<Node> order = depth_first(graph.dependents, graph.roots, graph.size);
  const ConnectedSets connected(graph.dependents, order, graph.size);
  const auto roots = roots_of(graph);
  Array<std::int32_t> ranks(graph.leaves.size());
  for (std::size_t i = 0; i < ranks.size(); ++i) ranks[i] = static_cast<std::int32_t>(i);
  std::shuffle(ranks.begin(), ranks.end(), random);
  PlainDegrees plain;
  Array<LeafDegrees::Leaf> leaves(graph.leaves.size());
  for (std::size_t i = 0; i < graph.leaves.size(); ++i) {
    const Node leaf = graph.leaves[i];
    const auto degree = graph.dependencies[leaf].empty() ? 0 : static_cast<std::int32_t>(roots[at(leaf)].size());
    plain.leaves.push_back({degree, ranks[i], false});
    leaves[at(connected.ends(leaf)[0].begin)] = {degree, ranks[i]};
  }
  LeafDegrees degrees(leaves, connected);
  CHECK(degrees.best({}, {}) == plain.best());

  Array<Node> todo;
  for (const Node root : graph.roots) {
    if (!graph.dependents[root].empty()) todo.push_back(root);
  }
  std::shuffle(todo.begin(), todo.end(), random);
  bool same = true;
  for (std::size_t begin = 0; begin < todo.size(); begin += together) {
    const Array<Node> lot(todo.begin() + static_cast<std::ptrdiff_t>(begin),
                          todo.begin() + static_cast<std::ptrdiff_t>(std::min(begin + together, todo.size())));
    Array<Node> touched;
    for (std::size_t i = 0; i < graph.leaves.size(); ++i) {
      const Node leaf = graph.leaves[i];
      PlainDegrees::Leaf& told = plain.leaves[i];
      for (const Node root : lot) told.degree -= told.degree > 0 && roots[at(leaf)].contains(root);
      if (!told.touched && random() % 8 == 0) {
        told.touched = true;
        touched.push_back(leaf);
      }
    }
    same = same && degrees.best(lot, touched) == plain.best();
  }
  CHECK(same);
  CHECK(degrees.best({}, {}) == -1);
}

Rows two_layers(std::mt19937& random, std::int32_t roots, std::int32_t leaves, unsigned one_in) {
  Rows rows(at(roots));
  for (std::int32_t i = 0; i < leaves; ++i) {
    rows.emplace_back();
    for (std::int32_t root = 0; root < roots; ++root) {
      if (random() % one_in == 0) rows.back().push_back(root);
    }
  }
  return rows;
}

}  // namespace

TEST(connected_sets_are_those_of_a_plain_search) {
  std::mt19937 random(1);
  check_sets(chain(30));
  check_sets(tree(64));
  check_sets(map_of(20, 4));
  for (int i = 0; i < 200; ++i) check_sets(random_rows(random, 150, 1 + static_cast<std::int32_t>(random() % 80)));
  for (int i = 0; i < 50; ++i) check_sets(two_layers(random, 60, 40, 2 + static_cast<unsigned>(i % 7)));
}

TEST(nodes_with_the_same_roots_share_one_set) {
  Rows rows(21);
  Array<std::int32_t> all, even;
  for (std::int32_t i = 0; i < 21; ++i) (i % 2 == 0 ? even : all).push_back(i);
  all.insert(all.end(), even.begin(), even.end());
  // The walk begins at 22, and so numbers all roots as they come; the even ones are too many intervals to keep twice.
  rows.insert(rows.end(), {all, {21, 0}, even, even, {23, 2}});
  const Made made(rows);
  const ConnectedSets sets(made.graph.dependencies, made.graph.postorder, made.graph.size);
  CHECK(sets.ends(21).size() == 1 && sets.ends(23).size() == 11);
  CHECK(sets.ends(21).data() == sets.ends(22).data());
  CHECK(sets.ends(23).data() == sets.ends(24).data());
  CHECK(sets.ends(23).data() == sets.ends(25).data());
}

TEST(leaf_degrees_are_those_of_plain_counting) {
  std::mt19937 random(2);
  for (const std::size_t together : {1, 2, 7, 50}) {
    check_degrees(two_layers(random, 1, 1, 1), together, random);
    check_degrees(map_of(33, 3), together, random);
    for (unsigned one_in : {1, 2, 5, 20, 60}) {
      for (const std::int32_t leaves : {1, 2, 5, 64, 100, 300}) {
        check_degrees(two_layers(random, 50, leaves, one_in), together, random);
      }
    }
    for (int i = 0; i < 40; ++i) check_degrees(random_rows(random, 120, 30), together, random);
  }
}

TEST(total_dependencies_keep_their_order_beyond_one_word) {
  const Made made(diamonds(300));
  const Array<std::uint64_t> totals = total_dependencies(made.graph);
  bool ascending = true;
  for (std::size_t i = 0; i + 3 < totals.size(); i += 3) {
    ascending = ascending && totals[i] < totals[i + 1] && totals[i + 1] == totals[i + 2];
    ascending = ascending && totals[i + 2] < totals[i + 3];
  }
  CHECK(ascending);
}

TEST(total_dependencies_differ_by_one_beyond_one_word) {
  // Two chains of diamonds of the same length, the second with one node more at its root.
  Rows rows = diamonds(200);
  const auto size = static_cast<std::int32_t>(rows.size());
  rows.push_back({});
  for (const auto& row : diamonds(200)) {
    rows.push_back({});
    for (const std::int32_t dep : row) rows.back().push_back(dep + size + 1);
  }
  rows[at(size + 1)].push_back(size);
  const Made made(rows);
  const Array<std::uint64_t> totals = total_dependencies(made.graph);
  CHECK(totals[at(size - 1)] < totals.back());
  CHECK(totals[0] == totals[at(size)] && totals[0] < totals[at(size + 1)]);
}

TEST(total_dependencies_are_plain_sums_where_they_fit) {
  const Made made({{}, {0}, {0, 1}, {2, 1, 0}});
  CHECK(total_dependencies(made.graph) == (Array<std::uint64_t>{1, 2, 4, 8}));
}

TEST(paths_share_beginnings_and_skip_what_is_done) {
  Array<std::uint8_t> done(10, 0);
  Paths paths(done);
  const auto rest = [&](Path path) {
    Array<Node> nodes;
    std::int32_t length = 0;
    for (const auto& [node, skipped] : paths.rest(path)) {
      nodes.push_back(node);
      length += skipped + 1;
    }
    CHECK(nodes.empty() || length == paths.length(path));
    return nodes;
  };
  const Path trunk = paths.extend(paths.begin(0), 1);
  const Path left = paths.extend(paths.extend(trunk, 2), 9);
  const Path right = paths.extend(paths.extend(trunk, 3), 9);
  CHECK(rest(left) == (Array<Node>{0, 1, 2, 9}));
  const Path both[] = {left, right};
  const Path early = paths.join(both);
  CHECK(rest(early) == (Array<Node>{0, 1, 2, 9, 0, 1, 3, 9}));
  CHECK(!paths.last_but_one_done(early));

  done[0] = done[1] = 1;
  CHECK(rest(left) == (Array<Node>{2, 9}));
  CHECK(rest(right) == (Array<Node>{3, 9}));
  const Path late = paths.join(both);
  CHECK(paths.length(late) == 8 && paths.last(late) == 9);
  CHECK(rest(late) == (Array<Node>{2, 9, 3, 9}));

  done[3] = 1;
  CHECK(paths.last_but_one_done(right) && !paths.last_but_one_done(left));
  done[2] = done[9] = 1;
  CHECK(rest(left).empty() && rest(late).empty());
}

int main() { return run_all(); }
