#include "order_leaves.h"

#include <algorithm>
#include <bit>
#include <utility>

namespace composable::ordering {

LeafDegrees::LeafDegrees(std::span<const Leaf> leaves, const ConnectedSets& connected)
    : connected_(connected), width_(std::bit_ceil(leaves.size())), places_(2 * width_), ranks_(leaves.size()) {
  for (std::size_t i = 0; i < leaves.size(); ++i) {
    ranks_[i] = leaves[i].rank;
    if (leaves[i].degree > 0) places_[width_ + i] = {leaves[i].degree, 0, leaves[i].rank, kNone};
  }
  for (std::size_t place = width_ - 1; place > 0; --place) pull(place);
}

std::int32_t LeafDegrees::best(std::span<const Node> roots_done, std::span<const Node> leaves_touched) {
  std::size_t intervals = 0;
  for (Node root : roots_done) intervals += connected_.ends(root).size();
  const std::size_t height = static_cast<std::size_t>(std::bit_width(width_));
  if (intervals * height > width_) {
    count_down_all(roots_done);
  } else {
    for (Node root : roots_done) {
      for (Interval leaves : connected_.ends(root)) count_down(leaves);
    }
    take_out_done();
  }
  for (Node leaf : leaves_touched) touch(leaf);
  const Place& top = places_[1];
  if (top.lowest >= kOut / 2) return -1;
  return top.touched != kNone ? top.touched : top.rank;
}

void LeafDegrees::count_down(Interval leaves) {
  const std::size_t first = width_ + at(leaves.begin);
  const std::size_t last = width_ + at(leaves.end);
  const auto lower = [this](std::size_t place) {
    --places_[place].lowest;
    --places_[place].added;
  };
  for (std::size_t begin = first, end = last; begin < end; begin /= 2, end /= 2) {
    if (begin % 2 == 1) lower(begin++);
    if (end % 2 == 1) lower(--end);
  }
  pull_above(first);
  pull_above(last - 1);
}

void LeafDegrees::count_down_all(std::span<const Node> roots_done) {
  Array<std::int32_t> change(width_ + 1, 0);  // against the leaf before
  for (Node root : roots_done) {
    for (Interval leaves : connected_.ends(root)) {
      --change[at(leaves.begin)];
      ++change[at(leaves.end)];
    }
  }
  for (std::size_t place = 1; place < width_; ++place) {
    const std::int32_t added = std::exchange(places_[place].added, 0);
    for (Place* below : {&places_[2 * place], &places_[2 * place + 1]}) {
      below->lowest += added;
      below->added += added;
    }
  }
  std::int32_t now = 0;
  for (std::size_t i = 0; i < width_; ++i) {
    Place& leaf = places_[width_ + i];
    now += change[i];
    leaf.added = 0;  // means nothing in the lowest row
    leaf.lowest = leaf.lowest >= kOut / 2 ? kOut : leaf.lowest + now;
    if (leaf.lowest == 0) leaf.lowest = kOut;
  }
  for (std::size_t place = width_ - 1; place > 0; --place) pull(place);
}

void LeafDegrees::touch(Node leaf) {
  const std::size_t number = at(connected_.ends(leaf)[0].begin);
  const std::size_t place = width_ + number;
  places_[place].touched = ranks_[number];
  pull_above(place);
}

void LeafDegrees::pull(std::size_t place) noexcept {
  const Place& a = places_[2 * place];
  const Place& b = places_[2 * place + 1];
  Place& above = places_[place];
  above.lowest = std::min(a.lowest, b.lowest) + above.added;
  above.rank = above.touched = kNone;
  for (const Place* below : {&a, &b}) {
    if (below->lowest != std::min(a.lowest, b.lowest)) continue;
    above.rank = std::min(above.rank, below->rank);
    above.touched = std::min(above.touched, below->touched);
  }
}

void LeafDegrees::pull_above(std::size_t place) noexcept {
  while ((place /= 2) > 0) pull(place);
}

void LeafDegrees::take_out_done() noexcept {
  while (places_[1].lowest == 0) {
    std::size_t place = 1;
    std::int32_t below = 0;  // the lowest degree as the places below count it
    while (place < width_) {
      below -= places_[place].added;
      place *= 2;
      if (places_[place].lowest != below) ++place;
    }
    places_[place].lowest = kOut;
    pull_above(place);
  }
}

}  // namespace composable::ordering
