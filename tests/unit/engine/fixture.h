/* fixture.h - a tiny model of the repository, opened for a test, and random prompts for it. */
#ifndef CT_TESTS_FIXTURE_H
#define CT_TESTS_FIXTURE_H

#include "test.h"

#include <stdbool.h>

#include <cortado/engine.h>

#include "base/rng.h"

typedef struct fixture {
    ct_model *model;
    const ct_model_info *info;
    ct_session *session;
} fixture;

/* The model in tests/golden/<folder>. device: "ref", "cpu", or "cpu bf16" for products of activations
 * rounded to bf16. */
static inline void open_model(fixture *f, const char *folder, const char *device, int threads)
{
    ct_err err = {0};
    char path[512];
    bool rounded = strcmp(device, "cpu bf16") == 0;
    ct_model_options options = {.device = rounded ? "cpu" : device,
                                .compute = rounded ? CT_CHOOSE_BF16 : CT_CHOOSE_F32,
                                .threads = threads};
    snprintf(path, sizeof path, CT_SOURCE_DIR "/tests/golden/%s", folder);
    assert_ok(ct_model_open(path, &options, &f->model, &err));
    f->info = ct_model_get_info(f->model);
    assert_ok(ct_session_new(f->model, &f->session, &err));
}

static inline void open_fixture(fixture *f, const char *device)
{
    open_model(f, "tiny-griffin", device, 1);
}

static inline void close_fixture(fixture *f)
{
    ct_session_free(f->session);
    ct_model_close(f->model);
}

/* n random ids from 3 on; the caller frees. */
static inline int32_t *random_ids(const fixture *f, int64_t n, uint64_t seed)
{
    int32_t *ids = malloc((size_t)n * sizeof *ids);
    assert_non_null(ids);
    for (int64_t i = 0; i < n; i++)
        ids[i] = 3 + (int32_t)(ct_rng_u64(seed, 0, (uint64_t)i) % (uint64_t)(f->info->vocab - 3));
    return ids;
}

#endif
