/* registry.c - the architectures, and opening and closing a model.
 *
 * Owns the choice of architecture, the loading of listed tensors, and what
 * ct_model_info says. A new architecture is one line here.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/err.h"
#include "model/model.h"

static const ct_arch *const archs[] = {&ct_arch_griffin, &ct_arch_jamba};
enum { N_ARCHS = sizeof archs / sizeof *archs };

/* ---- memory ---------------------------------------------------------------------------------- */

static ct_status own(ct_model *model, void *memory, ct_err *err)
{
    if (model->n_owned == model->owned_capacity) {
        size_t capacity = model->owned_capacity ? model->owned_capacity * 2 : 64;
        void **owned = realloc(model->owned, capacity * sizeof *owned);
        if (!owned) {
            free(memory);
            return ct_fail_memory(err, "model", capacity * sizeof *owned);
        }
        model->owned = owned;
        model->owned_capacity = capacity;
    }
    model->owned[model->n_owned++] = memory;
    return CT_OK;
}

/* Memory that came from a place's device. */
struct ct_placed {
    void *memory;
    int place;
};

static ct_status own_placed(ct_model *model, int place, void *memory, ct_err *err)
{
    if (model->n_placed == model->placed_capacity) {
        size_t capacity = model->placed_capacity ? model->placed_capacity * 2 : 64;
        struct ct_placed *placed = realloc(model->placed, capacity * sizeof *placed);
        if (!placed) {
            model->ops->free(model->places[place].device, memory);
            return ct_fail_memory(err, "model", capacity * sizeof *placed);
        }
        model->placed = placed;
        model->placed_capacity = capacity;
    }
    model->placed[model->n_placed++] = (struct ct_placed){memory, place};
    return CT_OK;
}

void *ct_model_alloc(ct_model *model, size_t bytes, ct_err *err)
{
    void *memory = calloc(1, bytes);
    if (!memory) {
        ct_fail_memory(err, "model", bytes);
        return NULL;
    }
    return own(model, memory, err) == CT_OK ? memory : NULL;
}

void *ct_model_place(ct_model *model, int place, size_t bytes, const char *what, ct_err *err)
{
    void *memory = model->ops->alloc(model->places[place].device, bytes);
    if (!memory) {
        ct_fail_memory(err, what, bytes);
        return NULL;
    }
    return own_placed(model, place, memory, err) == CT_OK ? memory : NULL;
}

ct_tensor_spec *ct_tensor_list_add(ct_tensor_list *list, ct_err *err, int rank,
                                   const int64_t *shape, float scale, float offset, const char *fmt,
                                   ...)
{
    if (list->n == list->capacity) {
        size_t capacity = list->capacity ? list->capacity * 2 : 64;
        ct_tensor_spec *specs = realloc(list->specs, capacity * sizeof *specs);
        if (!specs) {
            ct_fail_memory(err, "tensor list", capacity * sizeof *specs);
            return NULL;
        }
        list->specs = specs;
        list->capacity = capacity;
    }
    ct_tensor_spec *spec = &list->specs[list->n++];
    *spec = (ct_tensor_spec){.rank = rank, .scale = scale, .offset = offset, .layer = -1};
    memcpy(spec->shape, shape, (size_t)rank * sizeof *shape);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(spec->name, sizeof spec->name, fmt, ap);
    va_end(ap);
    return spec;
}

/* ---- choosing -------------------------------------------------------------------------------- */

/* The architecture named by `architectures` or, where that is absent, by `model_type`. */
static ct_status choose_arch(const json_t *config, const char *where, const ct_arch **out,
                             const char **name, ct_err *err)
{
    const json_t *list = json_object_get(config, "architectures");
    const char *architecture = json_string_value(json_array_get(list, 0)), *type = NULL;
    if (list && !json_is_null(list) && !architecture)
        return ct_fail(err, CT_ERR_FORMAT,
                       "%s: architectures: expected a list that begins with a name", where);
    if (!architecture) {
        ct_status st = ct_json_text(config, "model_type", true, where, &type, err);
        if (st != CT_OK) return st;
    }
    char supported[256] = "";
    size_t used = 0;
    for (size_t i = 0; i < N_ARCHS; i++) {
        if (architecture ? strcmp(architecture, archs[i]->architecture) == 0
                         : strcmp(type, archs[i]->model_type) == 0) {
            *out = archs[i];
            *name = archs[i]->architecture;
            return CT_OK;
        }
        if (used < sizeof supported)
            used += (size_t)snprintf(supported + used, sizeof supported - used, "%s%s",
                                     i ? ", " : "", archs[i]->architecture);
    }
    return ct_fail(err, CT_ERR_UNSUPPORTED, "%s: %s: expected one of %s (supported), got \"%s\"",
                   where, architecture ? "architectures" : "model_type", supported,
                   architecture ? architecture : type);
}

static ct_status check_needs(const ct_ops *ops, const ct_op_need *needs, size_t n, const char *who,
                             ct_err *err)
{
    for (size_t i = 0; i < n; i++) {
        void (*function)(void) = NULL;
        memcpy(&function, (const char *)ops + needs[i].offset, sizeof function);
        if (!function)
            return ct_fail(err, CT_ERR_UNSUPPORTED,
                           "device %s: operation %s, which %s needs, is missing there", ops->name,
                           needs[i].name, who);
    }
    return CT_OK;
}

ct_status ct_model_check_ops(const ct_model *model, ct_err *err)
{
    static const ct_op_need top[] = {CT_NEEDS(class_name),  CT_NEEDS(choose_compute),
                                     CT_NEEDS(cache_dtype), CT_NEEDS(scratch_bytes),
                                     CT_NEEDS(open),        CT_NEEDS(close),
                                     CT_NEEDS(alloc),       CT_NEEDS(free),
                                     CT_NEEDS(write),       CT_NEEDS(read),
                                     CT_NEEDS(copy),        CT_NEEDS(transfer),
                                     CT_NEEDS(begin),       CT_NEEDS(end),
                                     CT_NEEDS(embed),       CT_NEEDS(rms_norm),
                                     CT_NEEDS(pick),        CT_NEEDS(logits)};
    ct_status st = check_needs(model->ops, top, sizeof top / sizeof *top, "every model", err);
    for (int64_t i = 0; st == CT_OK && i < model->info.layers; i++) {
        const ct_layer_kind *kinds[] = {model->layers[i].mixer_kind, model->layers[i].ffn_kind};
        for (size_t k = 0; st == CT_OK && k < 2; k++)
            if (kinds[k] == &ct_kind_moe && model->ops->experts) continue; /* the whole at once */
            else
                st = check_needs(model->ops, kinds[k]->needs, kinds[k]->n_needs, kinds[k]->name,
                                 err);
    }
    return st;
}

/* ---- loading --------------------------------------------------------------------------------- */

/* Fills in a matrix's shape, and enters it in what is said of the whole. */
static void note_matrix(ct_model *model, const ct_tensor_spec *spec, int64_t count)
{
    spec->matrix->cols = spec->shape[spec->rank - 1];
    spec->matrix->rows = count / spec->matrix->cols;
    if (spec->matrix != &model->embed && spec->matrix != &model->head) {
        if (spec->matrix->rows > model->matrix_rows) model->matrix_rows = spec->matrix->rows;
        if (spec->matrix->cols > model->matrix_cols) model->matrix_cols = spec->matrix->cols;
    }
    int64_t bytes = count * (int64_t)ct_dtype_bytes(spec->matrix->dtype);
    model->info.weight_bytes += bytes;
    if (spec->expert) model->info.expert_bytes += bytes;
    const char *dtype = ct_dtype_name(spec->matrix->dtype);
    if (!model->info.dtype) model->info.dtype = dtype;
    else if (strcmp(model->info.dtype, dtype) != 0) model->info.dtype = "mixed";
}

static ct_status load_tensor(ct_model *model, const ct_tensor_spec *spec, ct_err *err)
{
    int64_t count = ct_tensor_count(spec);
    model->info.parameters += count;
    if (spec->vector) {
        float *values = NULL;
        ct_status st =
            ct_folder_vector(model->folder, spec->name, spec->shape, spec->rank, &values, err);
        if (st == CT_OK) st = own(model, values, err);
        if (st == CT_OK) *spec->vector = values;
        model->info.weight_bytes += count * (int64_t)sizeof *values;
        return st;
    }
    ct_status st =
        ct_folder_tensor(model->folder, spec->name, spec->shape, spec->rank, spec->matrix, err);
    if (st != CT_OK) return st;
    note_matrix(model, spec, count);
    return CT_OK;
}

void ct_random_describe(ct_model *model, const ct_tensor_list *tensors,
                        const ct_random_weights *how)
{
    for (size_t t = 0; t < tensors->n; t++) {
        const ct_tensor_spec *spec = &tensors->specs[t];
        int64_t count = ct_tensor_count(spec);
        model->info.parameters += count;
        if (spec->vector) {
            model->info.weight_bytes += count * (int64_t)sizeof(float);
        } else {
            spec->matrix->dtype = how->dtype;
            note_matrix(model, spec, count);
        }
    }
}

/* Takes a loaded tensor over into the memory of its place. */
static ct_status upload(ct_model *model, ct_tensor_spec *spec, ct_err *err)
{
    int64_t count = ct_tensor_count(spec);
    int place = ct_tensor_place(model, spec);
    const void *from = spec->vector ? (const void *)*spec->vector : spec->matrix->data;
    ct_dtype dtype = ct_tensor_held(model, spec);
    uint16_t *rounded = NULL;
    if (!spec->vector && dtype != spec->matrix->dtype) {
        rounded = malloc((size_t)count * sizeof *rounded);
        if (!rounded) return ct_fail_memory(err, "weights", (size_t)count * sizeof *rounded);
        for (int64_t i = 0; i < count; i++)
            rounded[i] = ct_f32_to_bf16(ct_dtype_get(from, spec->matrix->dtype, i));
        from = rounded;
    }
    size_t bytes = (size_t)count * ct_dtype_bytes(dtype);
    void *to = ct_model_place(model, place, bytes, spec->name, err);
    ct_status st =
        to ? model->ops->write(model->places[place].device, to, from, bytes, err) : CT_ERR_MEMORY;
    free(rounded);
    if (st != CT_OK) return st;
    if (spec->vector) {
        *spec->vector = to;
    } else {
        spec->matrix->data = to;
        spec->matrix->dtype = dtype;
    }
    return CT_OK;
}

/* An id of config.json; transformers allows a list, of which the first counts. */
static ct_status read_id(const json_t *config, const char *key, int64_t vocab, const char *where,
                         int32_t *out, ct_err *err)
{
    const json_t *value = json_object_get(config, key);
    int64_t id = -1;
    ct_status st = CT_OK;
    *out = -1;
    if (json_is_array(value)) {
        value = json_array_get(value, 0);
        if (!json_is_integer(value))
            return ct_fail(err, CT_ERR_FORMAT, "%s: %s: expected an id or a list of ids", where,
                           key);
        id = json_integer_value(value);
        if (id < 0 || id >= vocab)
            return ct_fail(err, CT_ERR_VALUE,
                           "%s: %s: expected an id below vocab_size = %lld, got %lld", where, key,
                           (long long)vocab, (long long)id);
    } else {
        st = ct_json_int(config, key, false, 0, vocab - 1, where, &id, err);
    }
    *out = (int32_t)id;
    return st;
}

/* What follows from the layers: their counts. */
static void count_layers(ct_model *model)
{
    ct_model_info *info = &model->info;
    for (int64_t i = 0; i < info->layers; i++) {
        ct_layer *layer = &model->layers[i];
        bool attends = layer->mixer_kind == &ct_kind_attention;
        layer->attention_index = attends ? info->attention_layers : -1;
        info->attention_layers += attends;
        info->recurrent_layers += !attends;
    }
}

static void choose_compute(ct_model *model, ct_compute_choice choice)
{
    switch (choice) {
    case CT_CHOOSE_F32:
        model->compute = CT_COMPUTE_F32;
        break;
    case CT_CHOOSE_BF16:
        model->compute = CT_COMPUTE_BF16;
        break;
    case CT_CHOOSE_AUTO:
        model->compute = model->ops->choose_compute(model->embed.dtype);
        break;
    }
    model->info.compute = model->compute == CT_COMPUTE_BF16 ? "bf16" : "f32";
}

static ct_status configure(ct_model *model, const json_t *config, const char *where,
                           ct_tensor_list *tensors, ct_err *err)
{
    ct_status st = CT_OK;
    ct_model_info *info = &model->info;
    CT_TRY(choose_arch(config, where, &model->arch, &info->architecture, err));
    info->family = model->arch->family;
    CT_TRY(model->arch->configure(model, config, where, tensors, err));
    CT_TRY(read_id(config, "bos_token_id", info->vocab, where, &info->bos, err));
    CT_TRY(read_id(config, "eos_token_id", info->vocab, where, &info->eos, err));
    CT_TRY(read_id(config, "pad_token_id", info->vocab, where, &info->pad, err));
    count_layers(model);
    model->tied = true;
    for (size_t i = 0; i < tensors->n; i++) model->tied &= tensors->specs[i].matrix != &model->head;
done:
    return st;
}

ct_status ct_model_synth_tensors(const json_t *config, const char *where, ct_synth_tensor **out,
                                 size_t *n, ct_err *err)
{
    ct_status st = CT_OK;
    ct_tensor_list tensors = {0};
    ct_model *model = calloc(1, sizeof *model);
    if (!model) CT_TRY(ct_fail_memory(err, "model", sizeof *model));
    CT_TRY(configure(model, config, where, &tensors, err));
    size_t bytes = tensors.n * (sizeof **out + sizeof tensors.specs->name);
    ct_synth_tensor *list = malloc(bytes);
    if (!list) CT_TRY(ct_fail_memory(err, "tensor list", bytes));
    char *names = (char *)(list + tensors.n);
    for (size_t i = 0; i < tensors.n; i++) {
        const ct_tensor_spec *spec = &tensors.specs[i];
        char *name = memcpy(names + i * sizeof spec->name, spec->name, sizeof spec->name);
        list[i] = ct_random_tensor(spec);
        list[i].name = name;
    }
    *out = list;
    *n = tensors.n;
done:
    ct_model_close(model);
    free(tensors.specs);
    return st;
}

/* A path that is mistyped, or names one of the folder's files, is told from a folder that lacks
 * one. */
static ct_status check_folder(const char *dir, ct_err *err)
{
    static const char expected[] = "expected a model folder with config.json and safetensors files";
    struct stat info;
    if (stat(dir, &info) != 0) {
        if (errno == ENOENT || errno == ENOTDIR)
            return ct_fail(err, CT_ERR_NOT_FOUND, "%s: %s, got none", dir, expected);
        return ct_fail_errno(err, "%s: %s", dir, expected);
    }
    if (!S_ISDIR(info.st_mode))
        return ct_fail(err, CT_ERR_NOT_FOUND, "%s: %s, got a file", dir, expected);
    return CT_OK;
}

static ct_status open_places(ct_model *model, ct_err *err)
{
    ct_status st = CT_OK;
    for (int p = 0; p < model->n_places && st == CT_OK; p++)
        st = model->ops->open(model->places[p].index, &model->places[p].device, err);
    return st;
}

/* Weights of a folder, mapped, and taken over to the places if their memory is another. */
static ct_status load_weights(ct_model *model, const char *dir, ct_tensor_list *tensors,
                              const ct_model_options *options, bool describe, ct_err *err)
{
    ct_status st;
    CT_TRY(ct_folder_open(dir, &model->folder, err));
    for (size_t i = 0; i < tensors->n; i++) CT_TRY(load_tensor(model, &tensors->specs[i], err));
    choose_compute(model, options->compute);
    CT_TRY(ct_places_lay_out(model, tensors, err));
    CT_TRY(open_places(model, err));
    for (size_t i = 0; i < tensors->n && !model->ops->host_memory && !describe; i++)
        CT_TRY(upload(model, &tensors->specs[i], err));
done:
    return st;
}

static ct_status make_weights(ct_model *model, const json_t *config, ct_tensor_list *tensors,
                              const ct_model_options *options, bool describe, ct_err *err)
{
    ct_status st;
    ct_random_weights how;
    CT_TRY(ct_random_parse(options->weights, &how, err));
    ct_random_describe(model, tensors, &how);
    choose_compute(model, options->compute);
    CT_TRY(ct_random_hash(model, config, tensors, &how, err));
    CT_TRY(ct_places_lay_out(model, tensors, err));
    CT_TRY(open_places(model, err));
    if (!describe) CT_TRY(ct_random_fill_all(model, tensors, &how, err));
done:
    return st;
}

static ct_status open_model(const char *dir, const ct_model_options *options, bool describe,
                            ct_model **out, ct_err *err)
{
    static const ct_model_options defaults = {0};
    if (!options) options = &defaults;
    ct_status st = CT_OK;
    json_t *config = NULL;
    ct_tensor_list tensors = {0};
    char *where = ct_strf(err, "%s/config.json", dir);
    ct_model *model = calloc(1, sizeof *model);
    if (!model || !where) CT_TRY(ct_fail_memory(err, "model", sizeof *model));
    ct_device_choice device;
    CT_TRY(ct_device_choose(options->device, &device, err));
    model->ops = device.ops;
    model->n_places = device.n;
    for (int p = 0; p < device.n; p++) model->places[p].index = device.index[p];
    if (options->threads < 0 || options->window_visible < 0 ||
        options->window_visible > (int64_t)INT32_MAX + 1)
        CT_TRY(
            ct_fail(err, CT_ERR_USAGE,
                    "model options: expected threads and window_visible of 0 or more, got %d and "
                    "%lld",
                    options->threads, (long long)options->window_visible));
    model->threads = options->threads;
    CT_TRY(check_folder(dir, err));
    CT_TRY(ct_config_open(dir, &config, err));
    CT_TRY(configure(model, config, where, &tensors, err));
    if (options->window_visible > 0) model->window = options->window_visible - 1;
    model->info.window = model->window < 0 ? 0 : model->window + 1;
    CT_TRY(ct_model_check_ops(model, err));

    model->described = describe;
    CT_TRY(options->weights ? make_weights(model, config, &tensors, options, describe, err)
                            : load_weights(model, dir, &tensors, options, describe, err));
    if (!model->head.rows) model->head = model->embed;
    model->info.backend = model->ops->class_name(model->places[0].device);
    *out = model;
    model = NULL;
done:
    ct_model_close(model);
    free(tensors.specs);
    free(where);
    json_decref(config);
    return st;
}

ct_status ct_model_open_unhashed(const char *dir, const ct_model_options *options, ct_model **out,
                                 ct_err *err)
{
    return open_model(dir, options, false, out, err);
}

ct_status ct_model_describe(const char *dir, const ct_model_options *options, ct_model **out,
                            ct_err *err)
{
    return open_model(dir, options, true, out, err);
}

ct_status ct_model_hash(ct_model *model, ct_err *err)
{
    const char *hash = NULL;
    if (!model->folder) { /* random weights: known without reading them */
        model->info.weights_hash = model->weights_hash;
        return CT_OK;
    }
    ct_status st = ct_folder_hash(model->folder, &hash, err);
    if (st != CT_OK) return st;
    snprintf(model->weights_hash, sizeof model->weights_hash, "%s", hash);
    model->info.weights_hash = model->weights_hash;
    return CT_OK;
}

ct_status ct_model_open(const char *dir, const ct_model_options *options, ct_model **out,
                        ct_err *err)
{
    ct_model *model = NULL;
    ct_status st = ct_model_open_unhashed(dir, options, &model, err);
    if (st == CT_OK) st = ct_model_hash(model, err);
    if (st == CT_OK) *out = model;
    else ct_model_close(model);
    return st;
}

void ct_model_close(ct_model *model)
{
    if (!model) return;
    if (model->folder) ct_folder_close(model->folder);
    for (size_t i = 0; i < model->n_owned; i++) free(model->owned[i]);
    free(model->owned);
    for (size_t i = 0; i < model->n_placed; i++)
        model->ops->free(model->places[model->placed[i].place].device, model->placed[i].memory);
    free(model->placed);
    for (int p = 0; p < model->n_places; p++)
        if (model->places[p].device) model->ops->close(model->places[p].device);
    free(model);
}

ct_model_needs ct_model_get_needs(const ct_model *model)
{
    const ct_model_info *info = &model->info;
    ct_model_needs needs = {.weights = info->weight_bytes,
                            .read_per_token = info->weight_bytes,
                            .working = ct_session_working_bytes(model)};
    if (info->experts > 0)
        needs.read_per_token -=
            info->expert_bytes / info->experts * (info->experts - info->experts_per_token);
    if (!model->tied) /* of the embeddings, one row */
        needs.read_per_token -= (model->embed.rows - 1) * model->embed.cols *
                                (int64_t)ct_dtype_bytes(model->embed.dtype);
    return needs;
}

int64_t ct_model_state_bytes(const ct_model *model, int64_t tokens)
{
    int64_t held = tokens, window = model->window;
    if (window >= 0 && tokens > window + CT_KV_BLOCK) held = window + CT_KV_BLOCK;
    return model->info.state_bytes_fixed +
           (held + CT_KV_BLOCK - 1) / CT_KV_BLOCK * model->info.state_bytes_per_block;
}

const ct_model_info *ct_model_get_info(const ct_model *model)
{
    return &model->info;
}
