/* random.c - weights that are made where they lie, instead of read from files.
 *
 * Owns the meaning of "random:SEED" and the choice of each tensor's type in memory. Numbers and streams are
 * those of `cortado synth` (load/synth.h), so that a folder written by it and weights made here are the
 * same model, bit for bit.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "model/model.h"

ct_status ct_random_parse(const char *text, ct_random_weights *out, ct_err *err)
{
    static const char prefix[] = "random:";
    const char *digits = text + sizeof prefix - 1;
    *out = (ct_random_weights){.dtype = CT_BF16};
    size_t n = 0;
    bool good = strncmp(text, prefix, sizeof prefix - 1) == 0;
    if (good) {
        n = strspn(digits, "0123456789");
        good = n > 0 && n <= 20;
    }
    for (size_t i = 0; good && i < n; i++)
        good = !__builtin_mul_overflow(out->seed, (uint64_t)10, &out->seed) &&
               !__builtin_add_overflow(out->seed, (uint64_t)(digits[i] - '0'), &out->seed);
    if (good && strcmp(digits + n, ":f32") == 0) out->dtype = CT_F32;
    else good = good && (!digits[n] || strcmp(digits + n, ":bf16") == 0);
    if (good) return CT_OK;
    return ct_fail(err, CT_ERR_USAGE,
                   "weights: expected random:SEED or random:SEED:f32, SEED a number from 0 to "
                   "18446744073709551615, got \"%s\"",
                   text);
}

ct_synth_tensor ct_random_tensor(const ct_tensor_spec *spec)
{
    ct_synth_tensor t = {.name = spec->name,
                         .rank = spec->rank,
                         .scale = spec->scale * 1.7320508f,
                         .offset = spec->offset};
    memcpy(t.shape, spec->shape, sizeof t.shape);
    return t;
}

/* On a device of its own each place must have room for its part, in the host's memory there is one room. */
static ct_status check_room(const ct_model *model, const ct_tensor_list *tensors, ct_err *err)
{
    enum { GRAIN = 512 }; /* what an allocation is rounded up to */
    bool host = model->ops->host_memory;
    int64_t needed[CT_PLACES_MAX] = {0};
    for (size_t i = 0; i < tensors->n; i++) {
        const ct_tensor_spec *spec = &tensors->specs[i];
        int64_t bytes =
            ct_tensor_count(spec) * (int64_t)ct_dtype_bytes(ct_tensor_held(model, spec));
        needed[host ? 0 : ct_tensor_place(model, spec)] += (bytes + GRAIN - 1) / GRAIN * GRAIN;
    }
    for (int p = 0; p < (host ? 1 : model->n_places); p++) {
        int64_t available = host ? ct_synth_host_memory() : ct_place_free_bytes(model, p);
        char where[48] = "";
        if (needed[p] <= available) continue;
        if (model->n_places > 1 && !host)
            snprintf(where, sizeof where, ", place %d of %d (number %d)", p + 1, model->n_places,
                     model->places[p].index);
        return ct_fail(err, CT_ERR_MEMORY,
                       "weights: expected %lld bytes of free memory on %s%s for %lld random "
                       "parameters, got %lld",
                       (long long)needed[p], model->ops->class_name(model->places[p].device), where,
                       (long long)model->info.parameters, (long long)available);
    }
    return CT_OK;
}

static ct_status make(ct_model *model, const ct_tensor_spec *spec, const ct_random_weights *how,
                      ct_err *err)
{
    ct_synth_tensor tensor = ct_random_tensor(spec);
    int place = ct_tensor_place(model, spec);
    ct_random_fill fill = {.seed = how->seed,
                           .stream = ct_synth_stream(spec->name),
                           .count = ct_tensor_count(spec),
                           .scale = tensor.scale,
                           .offset = tensor.offset,
                           .stored = how->dtype,
                           .held = ct_tensor_held(model, spec)};
    size_t bytes = (size_t)fill.count * ct_dtype_bytes(fill.held);
    void *to = ct_model_place(model, place, bytes, spec->name, err);
    if (!to) return CT_ERR_MEMORY;
    if (spec->vector) {
        *spec->vector = to;
    } else {
        spec->matrix->data = to;
        spec->matrix->dtype = fill.held;
    }
    return model->ops->fill_random(model->places[place].device, to, &fill, err);
}

ct_status ct_random_fill_all(ct_model *model, const ct_tensor_list *tensors,
                             const ct_random_weights *how, ct_err *err)
{
    if (!model->ops->fill_random)
        return ct_fail(
            err, CT_ERR_UNSUPPORTED,
            "device %s: operation fill_random, which random weights need, is missing there",
            model->ops->name);
    ct_status st = check_room(model, tensors, err);
    for (size_t i = 0; st == CT_OK && i < tensors->n; i++)
        st = make(model, &tensors->specs[i], how, err);
    for (int p = 0; st == CT_OK && model->ops->sync && p < model->n_places; p++)
        st = model->ops->sync(model->places[p].device, err);
    return st;
}

/* Whatever the weights or the arithmetic depend on enters: the config, and each tensor's name, shape,
 * scale and offset. */
ct_status ct_random_hash(ct_model *model, const json_t *config, const ct_tensor_list *tensors,
                         const ct_random_weights *how, ct_err *err)
{
    char hex[CT_HASH_HEX];
    char *text = json_dumps(config, JSON_COMPACT | JSON_SORT_KEYS);
    ct_hasher *hasher = ct_hasher_new();
    if (!text || !hasher) {
        free(text);
        ct_hasher_free(hasher);
        return ct_fail_memory(err, "weights", 1024);
    }
    ct_hasher_add_text(hasher, "cortado random weights 1");
    ct_hasher_add_text(hasher, text);
    for (size_t i = 0; i < tensors->n; i++) {
        const ct_tensor_spec *spec = &tensors->specs[i];
        int64_t rank = spec->rank;
        ct_hasher_add_text(hasher, spec->name);
        ct_hasher_add(hasher, &rank, sizeof rank);
        ct_hasher_add(hasher, spec->shape, (size_t)rank * sizeof *spec->shape);
        ct_hasher_add(hasher, &spec->scale, sizeof spec->scale);
        ct_hasher_add(hasher, &spec->offset, sizeof spec->offset);
    }
    ct_hash_hex(ct_hasher_get(hasher), hex);
    ct_hasher_free(hasher);
    free(text);
    snprintf(model->weights_hash, sizeof model->weights_hash, "random:%" PRIu64 ":%s:%s", how->seed,
             ct_dtype_name(how->dtype), hex);
    return CT_OK;
}
