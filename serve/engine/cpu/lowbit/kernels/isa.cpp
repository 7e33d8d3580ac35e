// The kernels for one instruction set: compiled once for each, with HOTSWAP_ISA naming it.

#include "blocks.h"
#include "lora.h"
#include "norms16.h"
#include "stored16.h"
#include "w8a8.h"
#include "wna16.h"
#include "wna16_bfloats.h"
#include "wna16_digits.h"

#define NAME_(isa) #isa
#define NAME(isa) NAME_(isa)
#define GETTER_(isa) isa##_kernels
#define GETTER(isa) GETTER_(isa)

namespace hotswap_lowbit {

static constexpr Kernels KERNELS = {
    NAME(HOTSWAP_ISA),
    16,
    32,
    8,
    HOTSWAP_ISA::BLOCKS_MOST_TOKENS,
    HOTSWAP_ISA::wna16_few,
    HOTSWAP_ISA::wna16_many,
    HOTSWAP_ISA::split_token,
    HOTSWAP_ISA::wna16_digits,
    HOTSWAP_ISA::pair_token,
    HOTSWAP_ISA::wna16_bfloats,
    HOTSWAP_ISA::ROUNDED_BYTES,
    HOTSWAP_ISA::round_token,
    HOTSWAP_ISA::w8a8,
    HOTSWAP_ISA::stored16_few,
    HOTSWAP_ISA::stored16_many,
    HOTSWAP_ISA::blocks_product<float>,
    HOTSWAP_ISA::blocks_product<uint16_t>,
    HOTSWAP_ISA::sum_of_squares,
    HOTSWAP_ISA::norm16,
    HOTSWAP_ISA::swiglu16,
    {HOTSWAP_ISA::lora_shrink<float>, HOTSWAP_ISA::lora_expand<float>},
    {HOTSWAP_ISA::lora_shrink<uint16_t>, HOTSWAP_ISA::lora_expand<uint16_t>},
};

const Kernels& GETTER(HOTSWAP_ISA)() { return KERNELS; }

}  // namespace hotswap_lowbit
