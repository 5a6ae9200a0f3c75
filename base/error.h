// Errors: a bug aborts with both operands printed; the world (timeout, peer gone, torn file) and the user's
// mistakes are a Result that the caller handles. Every Error says what happened in a sentence and carries the
// exit code it would end with.
#pragma once
#include <cstdlib>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace tessera {

/// Exit codes of every tessera process (docs/failure.md).
enum class ExitCode : int {
  done = 0,
  failed = 1,
  usage = 2,            ///< command line or recipe is wrong; nothing was started
  storage = 74,         ///< disk full, I/O error, checksum mismatch
  resumable = 75,       ///< stopped in good order; --resume continues
  fenced = 76,          ///< another coordinator took over: do not restart
  refused_key = 77,     ///< not authorised
  refused_recipe = 78,  ///< recipe, build or data of this worker differ from the job's
};

struct Error {
  ExitCode code = ExitCode::failed;
  std::string message;  ///< one sentence that names the place and, where there is one, the way out
};

/// Builds an Error from streamable parts: fail(ExitCode::storage, "cannot open ", path).
template <class... Parts>
Error fail(ExitCode code, const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  return {code, text.str()};
}

namespace detail {
[[noreturn]] void abort_with(const char* file, int line, const std::string& what);
}

/// Either a value or the Error that took its place.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::move(value)) {}      // NOLINT: implicit by design
  Result(Error error) : state_(std::move(error)) {}  // NOLINT
  bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }
  T& value() & {
    require();
    return std::get<0>(state_);
  }
  const T& value() const& {
    require();
    return std::get<0>(state_);
  }
  /// By value: `for (x : f().value())` would otherwise walk over a destroyed temporary.
  T value() && {
    require();
    return std::get<0>(std::move(state_));
  }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T operator*() && { return std::move(*this).value(); }
  const Error& error() const { return std::get<1>(state_); }

 private:
  void require() const {
    if (!ok())
      detail::abort_with(__FILE__, __LINE__, "value() of a failed Result: " + std::get<1>(state_).message);
  }
  std::variant<T, Error> state_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Error error) : error_(std::move(error)) {}  // NOLINT: implicit by design
  bool ok() const { return !error_.has_value(); }
  explicit operator bool() const { return ok(); }
  const Error& error() const { return *error_; }

 private:
  std::optional<Error> error_;
};
using Status = Result<void>;

// A bug: print the expression (and both operands) and abort. On in every build.
#define TESSERA_CHECK(condition, ...)                                                                    \
  do {                                                                                                   \
    if (!(condition)) [[unlikely]]                                                                       \
      ::tessera::detail::abort_with(__FILE__, __LINE__,                                                  \
                                    ::tessera::detail::describe(#condition __VA_OPT__(, ) __VA_ARGS__)); \
  } while (false)
#define TESSERA_CHECK_OP(op, a, b)                                                        \
  do {                                                                                    \
    const auto& lhs_ = (a);                                                               \
    const auto& rhs_ = (b);                                                               \
    if (!(lhs_ op rhs_)) [[unlikely]]                                                     \
      ::tessera::detail::abort_with(                                                      \
          __FILE__, __LINE__,                                                             \
          ::tessera::detail::describe(#a " " #op " " #b, " with ", lhs_, " and ", rhs_)); \
  } while (false)
#define TESSERA_CHECK_EQ(a, b) TESSERA_CHECK_OP(==, a, b)
#define TESSERA_CHECK_LE(a, b) TESSERA_CHECK_OP(<=, a, b)
#define TESSERA_CHECK_LT(a, b) TESSERA_CHECK_OP(<, a, b)

// Leaves the calling function with the Error of a failed Result or Status.
#define TESSERA_TRY(expression)                                             \
  do {                                                                      \
    if (auto status_ = (expression); !status_.ok()) return status_.error(); \
  } while (false)
#define TESSERA_CONCAT_(a, b) a##b
#define TESSERA_CONCAT(a, b) TESSERA_CONCAT_(a, b)
// TESSERA_ASSIGN(auto file, open(path)): binds the value or leaves with the Error.
#define TESSERA_ASSIGN(declaration, expression) \
  TESSERA_ASSIGN_(TESSERA_CONCAT(result_, __LINE__), declaration, expression)
#define TESSERA_ASSIGN_(temporary, declaration, expression) \
  auto temporary = (expression);                            \
  if (!temporary.ok()) return temporary.error();            \
  declaration = std::move(temporary).value()

namespace detail {
template <class... Parts>
std::string describe(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  return text.str();
}
}  // namespace detail
}  // namespace tessera
