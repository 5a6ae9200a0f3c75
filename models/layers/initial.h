// Initial values as a function of (seed, parameter name): any subset can be remade on any machine, and float
// and double models start from the same fp32 numbers.
#pragma once
#include <cstdint>

#include "models/parameter.h"

namespace tessera {

/// Independent normal values of this standard deviation, rounded to fp32, in row-major order.
void fill_normal(Parameter& parameter, double standard_deviation, std::uint64_t seed);
void fill_constant(Parameter& parameter, double value);

}  // namespace tessera
