/* limits_amx.c - the loop of limits.h on the tile unit (AMX). */
#include "op/cpu/limits.h"

#if defined(__AMX_BF16__)
#include <immintrin.h>

double ct_limit_fma_amx(int64_t rounds)
{
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } config = {.palette = 1};
    for (int i = 0; i < 8; i++) config.row_bytes[i] = 64, config.rows[i] = 16;
    __asm__ volatile("" ::: "memory"); /* see cpu_amx.c: GCC 12 drops stores before it */
    _tile_loadconfig(&config);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_zero(4);
    _tile_zero(5);
    _tile_zero(6);
    _tile_zero(7);
    for (int64_t r = 0; r < rounds; r++) { /* 2 x 2 tiles of sums, as a product holds them */
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 5, 6);
        _tile_dpbf16ps(2, 4, 7);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_release();
    return (double)rounds * 4 * 16 * 16 * 32 * 2;
}
#else
double ct_limit_fma_amx(int64_t rounds)
{
    (void)rounds;
    return 0;
}
#endif
