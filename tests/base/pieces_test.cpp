// Pieces against a table of single elements.
#include "base/pieces.h"

#include <gtest/gtest.h>

#include "base/random.h"

namespace tessera {
namespace {

const std::vector<ParamSpec> specs{{"a", {12, 2}}, {"a.b", {7}}, {"ab", {1, 3}}, {"scalar", {}}};

RowSet random_rows(KeyedRandom& random) {
  RowSet rows;
  for (const ParamSpec& spec : specs) {
    for (int i = 0; i < 3; ++i) {
      const auto begin = static_cast<std::int64_t>(random.below(spec.rows())),
                 end = begin + static_cast<std::int64_t>(random.below(spec.rows() - begin + 1));
      add_rows(rows, spec.name, {begin, end});
    }
  }
  return rows;
}

TensorMap numbered() {
  TensorMap whole;
  float next = 0;
  for (const ParamSpec& spec : specs) {
    HostTensor tensor = HostTensor::zeros(DType::f32, spec.shape);
    for (float& value : tensor.as<float>()) value = next++;
    whole.emplace(spec.name, std::move(tensor));
  }
  return whole;
}

/// Every element that pieces hold, with the value it has; each at most once.
std::map<std::pair<std::string, std::int64_t>, float> elements_of(const TensorMap& pieces) {
  std::map<std::pair<std::string, std::int64_t>, float> elements;
  for (const ParamSpec& spec : specs) {
    for (const PieceOf& piece : pieces_within(pieces, spec.name, {0, spec.rows()})) {
      std::int64_t at = piece.rows.begin * spec.row_size();
      for (const float value : piece.values.as<float>())
        EXPECT_TRUE(elements.emplace(std::pair(spec.name, at++), value).second);
      EXPECT_EQ(at, piece.rows.end * spec.row_size());
    }
  }
  return elements;
}

std::set<std::pair<std::string, std::int64_t>> elements_of(const RowSet& rows) {
  std::set<std::pair<std::string, std::int64_t>> elements;
  for (const ParamSpec& spec : specs) {
    const auto ranges = rows.find(spec.name);
    if (ranges == rows.end()) continue;
    for (const Rows& range : ranges->second) {
      for (std::int64_t i = range.begin * spec.row_size(); i < range.end * spec.row_size(); ++i)
        elements.emplace(spec.name, i);
    }
  }
  return elements;
}

TEST(Pieces, HoldWhatTheirNamesSayHoweverTheyAreCutAgain) {
  const TensorMap whole = numbered();
  const auto all = elements_of(whole);
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    KeyedRandom random(seed);
    const RowSet first = random_rows(random), second = random_rows(random);
    EXPECT_EQ(rows_of_pieces(pieces_of_rows(first, specs), specs), first);
    TensorMap pieces;
    add_pieces(pieces, whole, first);
    const auto expect = [&](const TensorMap& got, const RowSet& rows) {
      const auto values = elements_of(got);
      EXPECT_EQ(values.size(), elements_of(rows).size());
      for (const auto& element : elements_of(rows)) EXPECT_EQ(values.at(element), all.at(element));
    };
    expect(pieces, first);
    expect(pieces_of(pieces, second, specs), common_rows(first, second));
    expect(pieces_without(pieces, second), rows_without(first, second));
    for (const auto& [name, ranges] : common_rows(first, second)) {
      for (const Rows& range : ranges) {
        const auto found = find_rows(pieces, name, range);
        ASSERT_TRUE(found.has_value()) << name;
        EXPECT_EQ(found->as<float>().data(), find_rows(whole, name, range)->as<float>().data());
      }
    }
  }
}

TEST(Pieces, KnowNoRowsThatAreNotThere) {
  const TensorMap whole = numbered();
  TensorMap pieces;
  add_pieces(pieces, whole, {{"a", {{2, 5}, {7, 9}}}});
  EXPECT_FALSE(find_rows(pieces, "a", {2, 6}).has_value());
  EXPECT_FALSE(find_rows(pieces, "a", {4, 8}).has_value()) << "in no single piece";
  EXPECT_FALSE(find_rows(pieces, "a.b", {2, 3}).has_value()) << "of a name that begins alike";
  add_pieces(pieces, {{"momentum/a", whole.at("a")}}, {{"a", {{0, 2}}}}, "momentum/");
  EXPECT_TRUE(pieces.contains("momentum/a[0:2]"));
  EXPECT_DEATH(rows_of_pieces({"b"}, specs), "no parameter named b");
  EXPECT_DEATH(rows_of_pieces({"a[3:13]"}, specs), "no such piece");
  EXPECT_DEATH(rows_of_pieces({"a[0:3]", "a[2:4]"}, specs), "twice");
}

}  // namespace
}  // namespace tessera
