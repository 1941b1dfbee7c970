/* fixture.h - a tiny model of the repository, opened for a test, random prompts for it, and what it is
 * to be equal to the bit. */
#ifndef CT_TESTS_FIXTURE_H
#define CT_TESTS_FIXTURE_H

#include "test.h"

#include <stdbool.h>

#include <cortado/engine.h>

#include "base/rng.h"
#include "model/model.h"
#include "model/state.h"

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
    ct_model_options options = {.device = test_device(rounded ? "cpu" : device),
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

/* Both lie in the memory of a place of the model. */
static inline void assert_same_memory(const fixture *f, int place, const void *a, const void *b,
                                      int64_t bytes)
{
    ct_err err = {0};
    size_t n = (size_t)bytes;
    char *x = malloc(n + 1), *y = malloc(n + 1);
    assert_true(x && y);
    ct_device *device = f->model->places[place].device;
    assert_ok(f->model->ops->read(device, x, a, n, &err));
    assert_ok(f->model->ops->read(device, y, b, n, &err));
    assert_memory_equal(x, y, n);
    free(x), free(y);
}

/* The same position, recurrent state and keys and values that are not dropped. */
static inline void assert_same_state(const fixture *f, const ct_sequence *a, const ct_sequence *b)
{
    assert_int_equal(a->position, b->position);
    assert_int_equal(a->first_block, b->first_block);
    assert_int_equal(a->n_blocks, b->n_blocks);
    for (int p = 0; p < f->model->n_places; p++) {
        const ct_place *place = &f->model->places[p];
        assert_same_memory(f, p, a->fixed[p], b->fixed[p], place->state_bytes);
        for (int64_t i = a->first_block; place->block_bytes && i < a->n_blocks; i++)
            assert_same_memory(f, p, a->blocks[i]->data[p], b->blocks[i]->data[p],
                               place->block_bytes);
    }
}

/* The same ids, logits (of requests that keep them), heads and audit. */
static inline void assert_same_outcome(const fixture *f, const ct_job *a, const ct_job *b)
{
    size_t n, m;
    const int32_t *x = ct_job_ids(a, &n), *y = ct_job_ids(b, &m);
    assert_int_equal(n, m);
    assert_memory_equal(x, y, n * sizeof *x);
    assert_memory_equal(ct_job_logits(a), ct_job_logits(b),
                        n * (size_t)f->info->vocab * sizeof(float));
    assert_memory_equal(ct_job_heads_kept(a), ct_job_heads_kept(b),
                        n * (size_t)(f->info->attention_layers * f->info->heads));
    assert_memory_equal(ct_job_audit(a), ct_job_audit(b), sizeof(ct_audit));
}

#endif
