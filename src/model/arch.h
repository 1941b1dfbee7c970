/* arch.h - what the files of the architectures share: checks of config.json, naming of tensors.
 *
 * Owns the wording of their errors and the scales of random weights' matrices. For
 * model/<architecture>.c alone.
 */
#ifndef CT_MODEL_ARCH_H
#define CT_MODEL_ARCH_H

#include <math.h>

#include "model/model.h"

/* Ranges in which the product of any three sizes stays within 63 bits. */
enum {
    CT_ARCH_WIDTH_MAX = 1 << 18,
    CT_ARCH_LAYERS_MAX = 4096,
    CT_ARCH_HEADS_MAX = 4096,
    CT_ARCH_TAPS_MAX = 64,
    CT_ARCH_VOCAB_MAX = 1 << 24,
};

/* CT_ERR_VALUE, naming both keys, unless part divides whole. */
ct_status ct_arch_divides(int64_t whole, const char *whole_key, int64_t part, const char *part_key,
                          const char *where, ct_err *err) CT_CHECK;
/* CT_ERR_UNSUPPORTED if the key is there with another value: that would need arithmetic that is not
 * here. */
ct_status ct_arch_only(const json_t *config, const char *key, bool expected, const char *where,
                       ct_err *err) CT_CHECK;
ct_status ct_arch_text(const json_t *config, const char *key, const char *expected,
                       const char *where, ct_err *err) CT_CHECK;

/* Adds model.layers.<layer>.<name>, or <name> where layer is NULL; shape has 1 to 3 entries, the
 * rest 0. One of matrix and vector is where the tensor goes. */
ct_status ct_arch_add(ct_tensor_list *list, const ct_layer *layer, const char *name,
                      const int64_t shape[3], float scale, float offset, ct_matrix *matrix,
                      const float **vector, ct_err *err) CT_CHECK;

#define CT_SHAPE(...) ((const int64_t[3]){__VA_ARGS__})
/* In a function with `list`, `layer`, `err` and `done:`. Deviations keep each product's output about
 * as large as its input, so that a model with random weights has activations of a sane size at any
 * depth. */
#define CT_MATRIX(name, dest, fan_in, ...)                                                         \
    CT_TRY(ct_arch_add(list, layer, name, CT_SHAPE(__VA_ARGS__), 1.0f / sqrtf((float)(fan_in)), 0, \
                       dest, NULL, err))
#define CT_VECTOR(name, dest, scale, offset, ...)                                                  \
    CT_TRY(ct_arch_add(list, layer, name, CT_SHAPE(__VA_ARGS__), scale, offset, NULL, dest, err))

#endif
