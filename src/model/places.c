/* places.c - the devices that a model lies on, and which of its layers lie on which.
 *
 * Owns the meaning of a device's name, the split of the layers by the bytes of their weights, and what
 * follows from it: where each layer's states begin in those of its place, and how much memory the places
 * have left. A pass visits the places in order (step.c); a sequence has a part on each (state.c).
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "model/model.h"

/* ---- names ----------------------------------------------------------------------------------- */

static ct_status add_place(const char *device, int index, ct_device_choice *out, ct_err *err)
{
    if (out->n == CT_PLACES_MAX)
        return ct_fail(err, CT_ERR_USAGE, "device: expected at most %d parts, got more in \"%s\"",
                       (int)CT_PLACES_MAX, device);
    out->index[out->n++] = index;
    return CT_OK;
}

/* "cuda", "cuda:N", "cuda:N+M" and so on. A GPU may be named twice, for tests. */
static ct_status choose_gpus(const char *device, ct_device_choice *out, ct_err *err)
{
    const char *at = device + 4;
    if (!*at) return add_place(device, 0, out, err);
    do {
        char *end;
        long number = isdigit((unsigned char)at[1]) ? strtol(at + 1, &end, 10) : -1;
        if (number < 0 || number > 1024 || (*end && *end != '+'))
            return ct_fail(err, CT_ERR_USAGE,
                           "device: expected cuda or cuda:N, or cuda:N+M for a model over several "
                           "GPUs, got \"%s\"",
                           device);
        ct_status st = add_place(device, (int)number, out, err);
        if (st != CT_OK) return st;
        at = end;
    } while (*at);
    return CT_OK;
}

/* "cpu", "cpu+cpu" and so on. */
static ct_status choose_host(const char *device, ct_device_choice *out, ct_err *err)
{
    const char *name = out->ops->name;
    size_t size = strlen(name);
    for (const char *at = device;; at++) {
        bool good = strncmp(at, name, size) == 0 && (!at[size] || at[size] == '+');
        if (!good)
            return ct_fail(err, CT_ERR_USAGE,
                           "device: expected %s, or %s+%s to try a model over two places, got "
                           "\"%s\"",
                           name, name, name, device);
        ct_status st = add_place(device, 0, out, err);
        if (st != CT_OK) return st;
        at += size;
        if (!*at) return CT_OK;
    }
}

ct_status ct_device_choose(const char *device, ct_device_choice *out, ct_err *err)
{
    if (!device) device = "cpu";
    size_t size = strcspn(device, ":+");
    bool cuda = size == 4 && strncmp(device, "cuda", size) == 0;
    *out = (ct_device_choice){0};
    if (size == 3 && strncmp(device, "cpu", size) == 0) out->ops = ct_ops_cpu();
    if (size == 3 && strncmp(device, "ref", size) == 0) out->ops = ct_ops_ref();
    if (out->ops) return choose_host(device, out, err);
    if (!cuda || device[size] == '+')
        return ct_fail(err, CT_ERR_USAGE,
                       "device: expected cpu, cuda, cuda:N, cuda:N+M or ref, got \"%s\"", device);
    ct_status st = choose_gpus(device, out, err);
    out->ops = ct_ops_cuda();
    if (st == CT_OK && !out->ops)
        st = ct_fail(err, CT_ERR_UNSUPPORTED,
                     "device: this cortado was built without CUDA (cmake -DCT_CUDA=ON needs the "
                     "CUDA toolkit); expected cpu or ref, got \"%s\"",
                     device);
    return st;
}

/* ---- the split ------------------------------------------------------------------------------- */

/* Fills one place after another up to `most` bytes, each with a layer at least and leaving one for each
 * place after it. True if that takes all layers. */
static bool fill(const int64_t *bytes, int64_t n, int places, int64_t most, int64_t *first)
{
    int64_t layer = 0;
    for (int p = 0; p < places; p++) {
        int64_t sum = 0;
        first[p] = layer;
        while (layer < n - (places - 1 - p) && sum + bytes[layer] <= most) sum += bytes[layer++];
        if (layer == first[p]) return false;
    }
    return layer == n;
}

void ct_places_split(const int64_t *bytes, int64_t n, int places, int64_t *first)
{
    int64_t low = 0, high = 0; /* the least `most`: above low, at most high */
    CT_ASSERT(places >= 1 && places <= n);
    for (int64_t i = 0; i < n; i++) high += bytes[i];
    for (low = -1; high - low > 1;) {
        int64_t most = low + (high - low) / 2;
        if (fill(bytes, n, places, most, first)) high = most;
        else low = most;
    }
    CT_ASSERT(fill(bytes, n, places, high, first));
}

/* The layer with which a tensor lies: what comes before the layers is with the first, what comes after
 * with the last. */
static int64_t layer_of(const ct_model *model, const ct_tensor_spec *spec)
{
    if (spec->layer >= 0) return spec->layer;
    return spec->matrix == &model->embed ? 0 : model->info.layers - 1;
}

int ct_tensor_place(const ct_model *model, const ct_tensor_spec *spec)
{
    return model->layers[layer_of(model, spec)].place;
}

ct_dtype ct_tensor_held(const ct_model *model, const ct_tensor_spec *spec)
{
    if (spec->vector) return CT_F32;
    bool rounded = !model->ops->host_memory && model->compute == CT_COMPUTE_BF16;
    return rounded ? CT_BF16 : spec->matrix->dtype;
}

int64_t ct_tensor_count(const ct_tensor_spec *spec)
{
    int64_t count = 1;
    for (int i = 0; i < spec->rank; i++) count *= spec->shape[i];
    return count;
}

/* A head that is the embeddings is needed on the last place, too: one more tensor, with the embeddings'
 * name and so their values. */
static ct_status copy_tied_head(ct_model *model, ct_tensor_list *tensors, ct_err *err)
{
    if (!model->tied || model->n_places == 1 || model->ops->host_memory) return CT_OK;
    for (size_t i = 0; i < tensors->n; i++) {
        if (tensors->specs[i].matrix != &model->embed) continue;
        ct_tensor_spec copy = tensors->specs[i];
        ct_tensor_spec *spec = ct_tensor_list_add(tensors, err, copy.rank, copy.shape, copy.scale,
                                                  copy.offset, "%s", copy.name);
        if (!spec) return CT_ERR_MEMORY;
        model->head = model->embed;
        spec->matrix = &model->head;
        return CT_OK;
    }
    return CT_OK;
}

/* Where layer `layer` of a place lies, its states after those of the layers before it. */
static void put_layer(ct_model *model, int p, ct_layer *layer)
{
    ct_place *place = &model->places[p];
    bool attends = layer->attention_index >= 0;
    layer->place = p;
    layer->kv_index = attends ? place->n_attention : -1;
    layer->state_offset = place->state_bytes / (int64_t)sizeof(float);
    place->n_layers++;
    place->n_attention += attends;
    place->state_bytes += layer->state_floats * (int64_t)sizeof(float);
}

ct_status ct_places_lay_out(ct_model *model, ct_tensor_list *tensors, ct_err *err)
{
    ct_model_info *info = &model->info;
    int64_t first[CT_PLACES_MAX], n = info->layers;
    if (model->n_places > n)
        return ct_fail(err, CT_ERR_VALUE,
                       "device: expected at most as many parts as the model has layers, %lld, got "
                       "%d",
                       (long long)n, model->n_places);
    ct_status st = copy_tied_head(model, tensors, err);
    int64_t *bytes = st == CT_OK ? calloc((size_t)n, sizeof *bytes) : NULL;
    if (!bytes) return st == CT_OK ? ct_fail_memory(err, "layers", (size_t)n * sizeof *bytes) : st;
    for (size_t i = 0; i < tensors->n; i++) {
        const ct_tensor_spec *spec = &tensors->specs[i];
        bytes[layer_of(model, spec)] +=
            ct_tensor_count(spec) * (int64_t)ct_dtype_bytes(ct_tensor_held(model, spec));
    }
    ct_places_split(bytes, n, model->n_places, first);
    model->cache_dtype = model->ops->cache_dtype(model->compute);
    int64_t kv_bytes = 2 * CT_KV_BLOCK * info->kv_heads * info->head_dim *
                       (int64_t)ct_dtype_bytes(model->cache_dtype);
    for (int p = 0; p < model->n_places; p++) {
        ct_place *place = &model->places[p];
        int64_t end = p + 1 < model->n_places ? first[p + 1] : n;
        place->first_layer = first[p];
        for (int64_t i = first[p]; i < end; i++) {
            put_layer(model, p, &model->layers[i]);
            place->weight_bytes += bytes[i];
        }
        place->first_attention =
            p > 0 ? model->places[p - 1].first_attention + model->places[p - 1].n_attention : 0;
        place->block_bytes = place->n_attention * kv_bytes;
        info->state_bytes_fixed += place->state_bytes;
        info->state_bytes_per_block += place->block_bytes;
    }
    free(bytes);
    return CT_OK;
}

/* ---- memory ---------------------------------------------------------------------------------- */

int64_t ct_place_free_bytes(const ct_model *model, int place)
{
    const ct_place *own = &model->places[place];
    int64_t sharers = 0;
    for (int p = 0; p < model->n_places; p++) sharers += model->places[p].index == own->index;
    return model->ops->free_bytes(own->device) / sharers;
}

/* The larger of a place's parts of the recurrent states and of the KV blocks: of bytes of states, however
 * they are made up, it gets no more than this part. */
static double most_of_states(const ct_model *model, const ct_place *place)
{
    const ct_model_info *info = &model->info;
    double fixed = 0, blocks = 0;
    if (info->state_bytes_fixed > 0)
        fixed = (double)place->state_bytes / (double)info->state_bytes_fixed;
    if (info->state_bytes_per_block > 0)
        blocks = (double)place->block_bytes / (double)info->state_bytes_per_block;
    return fixed > blocks ? fixed : blocks;
}

int64_t ct_model_free_bytes(const ct_model *model)
{
    double least = -1;
    if (model->ops->host_memory) return -1;
    for (int p = 0; p < model->n_places; p++) {
        const ct_place *place = &model->places[p];
        double part = model->n_places > 1 ? most_of_states(model, place) : 1;
        int64_t bytes = ct_place_free_bytes(model, p) - ct_place_working_bytes(model, p);
        if (model->described) bytes -= place->weight_bytes;
        if (bytes <= 0) return 0;
        if (part > 0 && (least < 0 || (double)bytes / part < least)) least = (double)bytes / part;
    }
    return least < 0 ? 0 : (int64_t)least;
}
