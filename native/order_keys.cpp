#include "order_keys.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>

#include "order_sets.h"

namespace composable::ordering {
namespace {

// The first eight bytes as one number in the order of the text.
std::uint64_t leading(std::string_view text) noexcept {
  unsigned char bytes[8] = {};
  std::memcpy(bytes, text.data(), std::min<std::size_t>(text.size(), 8));
  std::uint64_t number = 0;
  for (unsigned char byte : bytes) number = number << 8 | byte;
  return number;
}

std::size_t common(std::string_view a, std::string_view b, std::size_t most) noexcept {
  a = a.substr(0, most);
  const auto end = std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first;
  return static_cast<std::size_t>(end - a.begin());
}

struct Leading {
  std::uint64_t number;
  Node node;
};

// Many are sorted byte by byte, beginning with the last: only the few bytes that differ.
void sort_by_number(Array<Leading>& entries) {
  constexpr std::size_t kMany = 100;
  const auto less = [](const Leading& a, const Leading& b) { return a.number < b.number; };
  if (std::is_sorted(entries.begin(), entries.end(), less)) return;
  if (entries.size() < kMany) {
    std::sort(entries.begin(), entries.end(), less);
    return;
  }
  std::uint64_t differing = 0;
  for (const Leading& entry : entries) differing |= entry.number ^ entries[0].number;
  Array<Leading> sorted(entries.size());
  for (int shift = 0; shift < 64; shift += 8) {
    if ((differing >> shift & 0xff) == 0) continue;
    std::array<std::size_t, 257> places{};
    for (const Leading& entry : entries) ++places[(entry.number >> shift & 0xff) + 1];
    std::partial_sum(places.begin(), places.end(), places.begin());
    for (const Leading& entry : entries) sorted[places[entry.number >> shift & 0xff]++] = entry;
    entries.swap(sorted);
  }
}

template <typename Number>
int three_way(Number a, Number b) noexcept {
  return a < b ? -1 : a > b ? 1 : 0;
}

}  // namespace

SortKeys::SortKeys(const Graph& graph, KeyTexts& texts)
    : graph_(graph), source_(texts), weights_(at(graph.size)), texts_(at(graph.size)) {
  const Array<std::uint64_t> totals = total_dependencies(graph);
  for (Node node : graph.postorder) {
    const auto deps = graph.dependencies[node];
    std::int32_t most = deps.empty() ? static_cast<std::int32_t>(graph.dependents.size(node)) : 0;
    for (Node dep : deps) most = std::max(most, weights_[at(dep)].most_dependents);
    weights_[at(node)] = {totals[at(node)], static_cast<std::int32_t>(deps.size()), 0, most};
  }
}

bool SortKeys::less(Node a, Node b) {
  if (const int order = compare_weights(a, b); order != 0) return order < 0;
  if (a == b) return false;
  for (Node node : {a, b}) {
    if (texts_[at(node)].data() == nullptr) source_.expect(node, true);
  }
  if (const int order = text(a).compare(text(b)); order != 0) return order < 0;
  return a < b;
}

void SortKeys::sort(Array<Node>& nodes) {
  if (nodes.size() < 2) return;
  if (nodes.size() == 2) {
    if (less(nodes[1], nodes[0])) std::swap(nodes[0], nodes[1]);
    return;
  }
  const auto lighter = [this](Node a, Node b) { return compare_weights(a, b) < 0; };
  if (!std::is_sorted(nodes.begin(), nodes.end(), lighter)) std::sort(nodes.begin(), nodes.end(), lighter);
  for (auto begin = nodes.begin(); begin != nodes.end();) {
    const auto end = std::find_if(begin + 1, nodes.end(), [&](Node node) { return lighter(*begin, node); });
    sort_by_text({begin, end});
    begin = end;
  }
}

Node SortKeys::largest(std::span<const Node> nodes) {
  Node largest = nodes[0];
  for (Node node : nodes.subspan(1)) {
    if (less(largest, node)) largest = node;
  }
  return largest;
}

std::int32_t SortKeys::roots(Node node) {
  if (!roots_counted_) count_roots();
  return weights_[at(node)].roots;
}

int SortKeys::compare_weights(Node a, Node b) {
  const Weight& x = weights_[at(a)];
  const Weight& y = weights_[at(b)];
  if (x.total != y.total) return three_way(x.total, y.total);
  if (x.dependencies != y.dependencies) return three_way(x.dependencies, y.dependencies);
  if (x.dependencies > 0 && !roots_counted_) count_roots();
  if (x.roots != y.roots) return three_way(x.roots, y.roots);
  return three_way(y.most_dependents, x.most_dependents);
}

std::string_view SortKeys::text(Node node) {
  std::string_view& text = texts_[at(node)];
  if (text.data() == nullptr) {
    text = source_.text(node);
    if (text.data() == nullptr) text = "";
  }
  return text;
}

// Keys of one collection have most of their text in common: it is skipped once, and most of what follows fits into one
// number.
void SortKeys::sort_by_text(std::span<Node> nodes) {
  if (nodes.size() < 2) return;
  const std::string_view first = text(nodes[0]);
  std::size_t skipped = first.size();
  constexpr std::size_t kAhead = 8;
  for (std::size_t i = 1; i < nodes.size(); ++i) {
    if (i + 2 * kAhead < nodes.size()) source_.expect(nodes[i + 2 * kAhead], false);
    if (i + kAhead < nodes.size()) source_.expect(nodes[i + kAhead], true);
    skipped = common(first, text(nodes[i]), skipped);
  }
  Array<Leading> entries(nodes.size());
  std::transform(nodes.begin(), nodes.end(), entries.begin(),
                 [&](Node node) { return Leading{leading(texts_[at(node)].substr(skipped)), node}; });
  sort_by_number(entries);
  const auto less = [this](const Leading& a, const Leading& b) {
    if (const int order = texts_[at(a.node)].compare(texts_[at(b.node)]); order != 0) return order < 0;
    return a.node < b.node;
  };
  for (auto begin = entries.begin(); begin != entries.end();) {
    const auto end =
        std::find_if(begin + 1, entries.end(), [&](const Leading& entry) { return entry.number != begin->number; });
    if (end - begin > 1) std::sort(begin, end, less);
    begin = end;
  }
  std::transform(entries.begin(), entries.end(), nodes.begin(), [](const Leading& entry) { return entry.node; });
}

void SortKeys::count_roots() {
  const ConnectedSets sets(graph_.dependencies, graph_.postorder, graph_.size);
  for (Node node : graph_.postorder) {
    if (graph_.dependencies.size(node) > 0) weights_[at(node)].roots = sets.count(node);
  }
  roots_counted_ = true;
}

}  // namespace composable::ordering
