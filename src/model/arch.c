/* arch.c - what the files of the architectures share. See arch.h. */
#include "model/arch.h"

#include <inttypes.h>
#include <string.h>

#include "base/err.h"

ct_status ct_arch_divides(int64_t whole, const char *whole_key, int64_t part, const char *part_key,
                          const char *where, ct_err *err)
{
    if (whole % part == 0) return CT_OK;
    return ct_fail(err, CT_ERR_VALUE,
                   "%s: %s: expected a multiple of %s = %" PRId64 ", got %" PRId64, where,
                   whole_key, part_key, part, whole);
}

ct_status ct_arch_only(const json_t *config, const char *key, bool expected, const char *where,
                       ct_err *err)
{
    bool value = expected;
    ct_status st = ct_json_bool(config, key, false, where, &value, err);
    if (st == CT_OK && value != expected)
        st = ct_fail(err, CT_ERR_UNSUPPORTED, "%s: %s: expected %s, got %s", where, key,
                     expected ? "true" : "false", value ? "true" : "false");
    return st;
}

ct_status ct_arch_text(const json_t *config, const char *key, const char *expected,
                       const char *where, ct_err *err)
{
    const char *value = expected;
    ct_status st = ct_json_text(config, key, false, where, &value, err);
    if (st == CT_OK && strcmp(value, expected) != 0)
        st = ct_fail(err, CT_ERR_UNSUPPORTED, "%s: %s: expected \"%s\", got \"%s\"", where, key,
                     expected, value);
    return st;
}

ct_status ct_arch_add(ct_tensor_list *list, const ct_layer *layer, const char *name,
                      const int64_t shape[3], float scale, float offset, ct_matrix *matrix,
                      const float **vector, ct_err *err)
{
    int rank = shape[1] == 0 ? 1 : shape[2] == 0 ? 2 : 3;
    ct_tensor_spec *spec =
        layer ? ct_tensor_list_add(list, err, rank, shape, scale, offset,
                                   "model.layers.%" PRId64 ".%s", layer->index, name)
              : ct_tensor_list_add(list, err, rank, shape, scale, offset, "%s", name);
    if (!spec) return CT_ERR_MEMORY;
    spec->layer = layer ? layer->index : -1;
    spec->matrix = matrix;
    spec->vector = vector;
    return CT_OK;
}
