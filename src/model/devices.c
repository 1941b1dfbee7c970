/* devices.c - lists of devices, and `cuda:all`. See devices.h. */
#include "model/devices.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "model/model.h"

static const char all[] = "cuda:all";

/* Beside the weights of a copy there must be room for so many states of so many tokens: with fewer, a
 * study would be computed again and again rather than shared. */
enum { STATES = 16, STATE_TOKENS = 4096, MAX_GPUS = 64 };

size_t ct_device_places(const char *name)
{
    size_t places = 1;
    for (; *name; name++) places += *name == '+';
    return places;
}

/* ---- lists ----------------------------------------------------------------------------------- */

ct_status ct_devices_parse(const char *text, ct_devices *out, ct_err *err)
{
    *out = (ct_devices){0};
    int kind = 0; /* bytes of the last name's "cuda:" */
    for (const char *at = text ? text : "cpu", *end; at; at = *end ? end + 1 : NULL) {
        end = at + strcspn(at, ",");
        int size = (int)(end - at);
        bool number = *at >= '0' && *at <= '9' && kind > 0;
        const char *before = number ? out->names[out->n - 1] : "";
        if (size == 0 || (number ? kind : 0) + size >= CT_DEVICE_NAME)
            return ct_fail(err, CT_ERR_USAGE,
                           "device: expected names with commas between them, such as cuda:0,1, got "
                           "\"%.200s\"",
                           text);
        if (out->n == CT_DEVICES_MAX)
            return ct_fail(err, CT_ERR_USAGE, "device: expected at most %d of them, got more",
                           CT_DEVICES_MAX);
        char *name = out->names[out->n++];
        snprintf(name, CT_DEVICE_NAME, "%.*s%.*s", number ? kind : 0, before, size, at);
        if (strcmp(name, all) == 0)
            return ct_fail(err, CT_ERR_USAGE,
                           "device: expected cuda:all alone, got it in a list (\"%.200s\")", text);
        const char *colon = strchr(name, ':');
        kind = colon ? (int)(colon + 1 - name) : 0;
    }
    return CT_OK;
}

/* ---- all GPUs -------------------------------------------------------------------------------- */

/* The name of a copy on k GPUs. */
static void join(const int *gpus, int k, char out[CT_DEVICE_NAME])
{
    int used = snprintf(out, CT_DEVICE_NAME, "cuda:%d", gpus[0]);
    for (int i = 1; i < k && used < CT_DEVICE_NAME; i++)
        used += snprintf(out + used, (size_t)(CT_DEVICE_NAME - used), "+%d", gpus[i]);
}

ct_status ct_devices_fill(const int64_t *free_bytes, int n, const ct_device_needs *needs,
                          ct_devices *out, ct_err *err)
{
    *out = (ct_devices){0};
    if (n > MAX_GPUS) n = MAX_GPUS;
    int64_t sum = 0;
    for (int k = 1; k <= n && out->n == 0; k++) {
        /* As many lanes as GPUs go through a copy, each with working memory on all of them. */
        int64_t part =
            (needs->shared + k - 1) / k + k * needs->each + (k > 1 ? needs->unevenly : 0);
        int fitting[MAX_GPUS], found = 0;
        for (int i = 0; i < n; i++)
            if (free_bytes[i] >= part) fitting[found++] = i;
        for (int at = 0; at + k <= found && out->n < CT_DEVICES_MAX; at += k)
            join(fitting + at, k, out->names[out->n++]);
    }
    if (out->n > 0) return CT_OK;
    for (int i = 0; i < n; i++) sum += free_bytes[i];
    return ct_fail(err, CT_ERR_MEMORY,
                   "device cuda:all: expected %.1f GiB for the weights and some states, and %.1f "
                   "GiB or more on each GPU to work in, got %.1f GiB free on %d GPUs",
                   (double)needs->shared / (1 << 30), (double)needs->each / (1 << 30),
                   (double)sum / (1 << 30), n);
}

static ct_status model_needs(const char *dir, const ct_model_options *options, ct_device_needs *out,
                             ct_err *err)
{
    ct_model_options look = *options;
    ct_model *model = NULL;
    look.device = "cuda:0";
    ct_status st = ct_model_describe(dir, &look, &model, err);
    if (st != CT_OK) return st;
    ct_model_needs needs = ct_model_get_needs(model);
    *out = (ct_device_needs){
        .shared = needs.weights + STATES * ct_model_state_bytes(model, STATE_TOKENS),
        .each = needs.working,
        /* Layers are not cut, and one with experts may be twice the mean. */
        .unevenly = 2 * needs.weights / (model->info.layers > 0 ? model->info.layers : 1),
    };
    ct_model_close(model);
    return CT_OK;
}

/* Asks the GPUs what is free. One that cannot be used here has nothing. */
static ct_status find_gpus(int64_t free_bytes[MAX_GPUS], int *n, ct_err *err)
{
    ct_device_choice choice;
    ct_status st = ct_device_choose("cuda", &choice, err);
    if (st != CT_OK) return st;
    const ct_ops *ops = choice.ops;
    *n = ops->count();
    if (*n > MAX_GPUS) *n = MAX_GPUS;
    for (int i = 0; i < *n; i++) {
        ct_device *device = NULL;
        ct_err why = {0};
        free_bytes[i] = 0;
        if (ops->open(i, &device, &why) != CT_OK) continue;
        free_bytes[i] = ops->free_bytes(device);
        ops->close(device);
    }
    return CT_OK;
}

ct_status ct_devices_choose(const char *dir, const ct_model_options *options, ct_devices *out,
                            ct_err *err)
{
    int n = 0;
    int64_t free_bytes[MAX_GPUS];
    ct_device_needs needs;
    if (!options->device || strcmp(options->device, all) != 0)
        return ct_devices_parse(options->device, out, err);
    ct_status st = model_needs(dir, options, &needs, err);
    if (st == CT_OK) st = find_gpus(free_bytes, &n, err);
    return st == CT_OK ? ct_devices_fill(free_bytes, n, &needs, out, err) : st;
}

ct_status ct_device_choose_one(const char *dir, const ct_model_options *options,
                               char out[CT_DEVICE_NAME], ct_err *err)
{
    ct_devices list;
    ct_model_options o = *options;
    if (!dir && o.device && strcmp(o.device, all) == 0) o.device = "cuda";
    ct_status st = ct_devices_choose(dir, &o, &list, err);
    if (st != CT_OK) return st;
    if (list.n > 1 && o.device && strcmp(o.device, all) != 0)
        return ct_fail(err, CT_ERR_USAGE,
                       "device: expected one here (a list is for `cortado run`), got \"%.200s\"",
                       o.device);
    memcpy(out, list.names[0], CT_DEVICE_NAME);
    return CT_OK;
}
