#include "data/tokenizer.h"

namespace tessera {

std::string Tokenizer::decode(const std::vector<std::int32_t>& ids) const {
  std::string text;
  for (const std::int32_t id : ids) text += surface(id);
  return text;
}

}  // namespace tessera
