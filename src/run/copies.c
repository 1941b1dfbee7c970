/* copies.c - the copies of a model that a run computes with, its lanes, and the memory of each. See
 * work.h.
 */
#include <inttypes.h>
#include <omp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "model/devices.h"
#include "model/model.h"
#include "run/work.h"

/* Opens one copy, beside the others: each device has its own way to the host's memory. */
typedef struct opener {
    const char *dir;
    ct_model_options options;
    bool describe;
    ct_model *model;
    ct_err err;
    pthread_t thread;
    bool started;
} opener;

static void *open_copy(void *of)
{
    opener *o = of;
    if (o->options.threads > 0) omp_set_num_threads(o->options.threads);
    ct_status st = o->describe ? ct_model_describe(o->dir, &o->options, &o->model, &o->err)
                               : ct_model_open_unhashed(o->dir, &o->options, &o->model, &o->err);
    if (st != CT_OK) o->err.status = st;
    return NULL;
}

/* Bits depend on the kind of device, and so do the keys of cells. */
static ct_status check_alike(const ct_work *work, ct_err *err)
{
    const ct_model_info *a = work->info;
    for (size_t i = 1; i < work->n_copies; i++) {
        const ct_model_info *b = ct_model_get_info(work->copies[i]);
        if (!strcmp(a->backend, b->backend) && !strcmp(a->compute, b->compute)) continue;
        return ct_fail(
            err, CT_ERR_USAGE,
            "device: expected devices of one kind, whose outcomes have the same bits, got "
            "%s (%s, %s) and %s (%s, %s)",
            work->devices.names[0], a->backend, a->compute, work->devices.names[i], b->backend,
            b->compute);
    }
    return CT_OK;
}

ct_status ct_work_open_copies(ct_work *work, const char *dir, const ct_model_options *options,
                              ct_err *err)
{
    ct_status st = CT_OK;
    opener *openers = NULL;
    CT_TRY(ct_devices_choose(dir, options, &work->devices, err));
    size_t n = work->devices.n;
    for (size_t i = 0; i < n; i++) work->n_lanes += ct_device_places(work->devices.names[i]);
    openers = calloc(n, sizeof *openers);
    work->copies = calloc(n, sizeof *work->copies);
    work->lanes = calloc(work->n_lanes, sizeof *work->lanes);
    if (!openers || !work->copies || !work->lanes)
        CT_TRY(ct_fail_memory(err, "devices", n * sizeof *openers));
    int threads = options->threads;
    if (work->n_lanes > 1) { /* those of the machine are shared out */
        threads = (threads > 0 ? threads : omp_get_max_threads()) / (int)work->n_lanes;
        threads = threads > 0 ? threads : 1;
    }
    for (size_t i = 0; i < n; i++) {
        openers[i] = (opener){.dir = dir, .options = *options, .describe = work->options->dry_run};
        openers[i].options.device = work->devices.names[i];
        openers[i].options.threads = threads;
        openers[i].started =
            i > 0 && pthread_create(&openers[i].thread, NULL, open_copy, &openers[i]) == 0;
    }
    int before = omp_get_max_threads();
    for (size_t i = 0; i < n; i++)
        if (!openers[i].started) open_copy(&openers[i]);
    omp_set_num_threads(before);
    for (size_t i = 0; i < n; i++) {
        if (openers[i].started) pthread_join(openers[i].thread, NULL);
        if (openers[i].model) work->copies[work->n_copies++] = openers[i].model;
        if (openers[i].err.status == CT_OK || st != CT_OK) continue;
        st = openers[i].err.status;
        *err = openers[i].err;
    }
    if (st != CT_OK) goto done;
    size_t lane = 0, used = 0;
    char *text = work->result ? work->result->devices : NULL;
    for (size_t i = 0; text && i < n && used < sizeof work->result->devices; i++)
        used += (size_t)snprintf(text + used, sizeof work->result->devices - used, "%s%s",
                                 i ? ", " : "", work->devices.names[i]);
    for (size_t i = 0; i < n; i++)
        for (size_t p = ct_device_places(work->devices.names[i]); p > 0; p--)
            work->lanes[lane++] = work->copies[i];
    work->model = work->copies[0];
    work->info = ct_model_get_info(work->model);
    st = check_alike(work, err);
done:
    free(openers);
    return st;
}

void ct_work_close_copies(ct_work *work)
{
    for (size_t i = 0; i < work->n_copies; i++) ct_model_close(work->copies[i]);
    free(work->copies);
    free(work->lanes);
}

int64_t ct_work_memory(const ct_work *work, bool *of_device)
{
    int64_t least = INT64_MAX;
    for (size_t i = 0; i < work->n_copies; i++) {
        const ct_model *copy = work->copies[i];
        int64_t lanes = 0, limit = work->options->memory, left = ct_model_free_bytes(copy);
        *of_device = left >= 0;
        for (size_t j = 0; j < work->n_copies; j++) /* those in the same memory */
            if (!*of_device || !strcmp(work->devices.names[i], work->devices.names[j]))
                lanes += (int64_t)ct_device_places(work->devices.names[j]);
        if (limit <= 0 && *of_device) {
            left -= (lanes - 1) * ct_session_working_bytes(copy);
            limit = left > 0 ? left / 10 * 9 : 0; /* the rest: lists, recorded passes, fragments */
        }
        if (limit <= 0 && !*of_device) limit = ct_memory_free() / 2;
        if (limit / lanes < least) least = limit / lanes;
    }
    return least;
}
