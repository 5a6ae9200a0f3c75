// The table [partial] of a recipe: what is divided among the slots, and how it is dealt.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "base/fields.h"

namespace tessera {

struct PartialSettings : Settings {
  std::string cut = "none";
  std::int64_t slices = 1;  ///< N: parts that the cut is divided into
  std::string assign = "modulo";
  std::int64_t replicas = 1;
  std::vector<std::string> owners;
  std::vector<double> speeds;
  std::vector<std::string> shared = {"auto"};
  std::vector<std::string> frozen;
  std::int64_t rotate_every = 0;  ///< in rounds; 0: never
  std::string rotate_state = "reset";
  void fields(FieldVisitor& f) override;
  std::vector<std::string> problems() const override;

  bool blocks() const { return assign == "block"; }
};

}  // namespace tessera
