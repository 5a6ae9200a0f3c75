#include "base/stream_copy.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace tessera {
namespace {

TEST(StreamCopy, CopiesExactlyWhatItIsToldToWhereverItLies) {
  std::vector<std::uint8_t> from(1000);
  for (std::size_t i = 0; i < from.size(); ++i) from[i] = static_cast<std::uint8_t>(i * 7 + 1);
  for (const std::size_t of_all : {std::size_t{1}, std::size_t{1} << 30}) {
    for (const std::size_t bytes : {0u, 1u, 63u, 64u, 65u, 200u, 640u}) {
      for (const std::size_t into : {0u, 1u, 16u, 63u}) {
        for (const std::size_t out_of : {0u, 3u}) {
          std::vector<std::uint8_t> to(1000, 0xee);
          stream_copy(to.data() + into, from.data() + out_of, bytes, of_all);
          for (std::size_t i = 0; i < to.size(); ++i) {
            const bool copied = into <= i && i < into + bytes;
            ASSERT_EQ(to[i], copied ? from[i - into + out_of] : 0xee)
                << i << ": " << bytes << " bytes from " << out_of << " to " << into << " of " << of_all;
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace tessera
