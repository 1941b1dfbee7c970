/* test_places.c - a model over several devices: their names, the split of the layers, what lies where, what
 * memory is left, and threads that step different sequences of one model. */
#include "unit/engine/fixture.h"

#include <pthread.h>

#define COUNT(a) (sizeof(a) / sizeof *(a))

/* ---- names ----------------------------------------------------------------------------------- */

static void a_device_of_several_parts_has_a_place_for_each(void **state)
{
    (void)state;
    static const struct {
        const char *name, *backend;
        int n;
    } names[] = {{NULL, "cpu", 1},
                 {"cpu", "cpu", 1},
                 {"ref", "ref", 1},
                 {"cpu+cpu", "cpu", 2},
                 {"ref+ref+ref", "ref", 3}};
    ct_err err = {0};
    ct_device_choice choice;
    for (size_t i = 0; i < COUNT(names); i++) {
        assert_ok(ct_device_choose(names[i].name, &choice, &err));
        assert_string_equal(choice.ops->name, names[i].backend);
        assert_int_equal(choice.n, names[i].n);
    }
    ct_status st = ct_device_choose("cuda:3+0+12", &choice, &err);
    assert_int_equal(st, ct_ops_cuda() ? CT_OK : CT_ERR_UNSUPPORTED);
    assert_int_equal(choice.n, 3);
    assert_true(choice.index[0] == 3 && choice.index[1] == 0 && choice.index[2] == 12);
    (void)!ct_device_choose("cuda:7", &choice, &err);
    assert_true(choice.n == 1 && choice.index[0] == 7);
}

static void devices_that_cannot_go_together_are_refused_with_what_is_expected(void **state)
{
    (void)state;
    static const struct {
        const char *name, *part;
    } bad[] = {
        {"cpu+ref", "expected cpu, or cpu+cpu to try a model over two places, got \"cpu+ref\""},
        {"ref+cpu", "expected ref, or ref+ref"},
        {"cpu+", "expected cpu, or cpu+cpu"},
        {"cpu:1", "expected cpu, or cpu+cpu"},
        {"cpux", "expected cpu, cuda, cuda:N, cuda:N+M or ref, got \"cpux\""},
        {"+cpu", "expected cpu, cuda, cuda:N, cuda:N+M or ref"},
        {"", "expected cpu, cuda, cuda:N, cuda:N+M or ref"},
        {"cuda+cuda", "expected cpu, cuda, cuda:N, cuda:N+M or ref"},
        {"cuda:", "expected cuda or cuda:N, or cuda:N+M"},
        {"cuda:0+", "expected cuda or cuda:N, or cuda:N+M"},
        {"cuda:0+cuda:1", "expected cuda or cuda:N, or cuda:N+M"},
        {"cuda:0+ 1", "expected cuda or cuda:N, or cuda:N+M"},
        {"cuda:-1", "expected cuda or cuda:N, or cuda:N+M"},
        {"cuda:0,1", "expected cuda or cuda:N, or cuda:N+M"},
        {"cuda:0+1+2+3+4+5+6+7+8+9+10+11+12+13+14+15+16", "expected at most 16 parts"},
    };
    ct_err err = {0};
    ct_device_choice choice;
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_fails(ct_device_choose(bad[i].name, &choice, &err), CT_ERR_USAGE, bad[i].part);
}

/* ---- the split ------------------------------------------------------------------------------- */

/* The least largest stretch, by trying every split. */
static int64_t least_largest(const int64_t *bytes, int64_t n, int places)
{
    int64_t sum = 0, best = INT64_MAX;
    for (int64_t i = 0; i < n; i++) {
        sum += bytes[i];
        if (places == 1) continue;
        if (n - i - 1 < places - 1) break;
        int64_t rest = least_largest(bytes + i + 1, n - i - 1, places - 1);
        int64_t largest = rest > sum ? rest : sum;
        best = largest < best ? largest : best;
    }
    return places == 1 ? sum : best;
}

static void the_largest_place_is_as_small_as_any_split_makes_it(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 300; seed++) {
        int64_t bytes[10], first[10];
        int64_t n = 1 + (int64_t)(ct_rng_u64(seed, 0, 0) % 10);
        int places = 1 + (int)(ct_rng_u64(seed, 0, 1) % (uint64_t)n);
        for (int64_t i = 0; i < n; i++)
            bytes[i] = (int64_t)(ct_rng_u64(seed, 1, (uint64_t)i) % (seed % 3 ? 100 : 3));
        ct_places_split(bytes, n, places, first);
        int64_t largest = 0;
        assert_int_equal(first[0], 0);
        for (int p = 0; p < places; p++) {
            int64_t end = p + 1 < places ? first[p + 1] : n, sum = 0;
            assert_true(end > first[p]);
            for (int64_t i = first[p]; i < end; i++) sum += bytes[i];
            largest = sum > largest ? sum : largest;
        }
        assert_int_equal(largest, least_largest(bytes, n, places));
    }
}

static void known_layers_are_split_where_one_would(void **state)
{
    (void)state;
    int64_t first[4];
    const int64_t even[] = {4, 4, 4, 4}, head[] = {9, 1, 1, 1}, tail[] = {1, 1, 1, 9};
    ct_places_split(even, 4, 2, first);
    assert_true(first[0] == 0 && first[1] == 2);
    ct_places_split(head, 4, 2, first);
    assert_int_equal(first[1], 1);
    ct_places_split(tail, 4, 2, first);
    assert_int_equal(first[1], 3);
    ct_places_split(tail, 4, 4, first);
    assert_true(first[1] == 1 && first[2] == 2 && first[3] == 3);
}

/* ---- what lies where ------------------------------------------------------------------------- */

static void open_at(ct_model **model, const char *folder, const char *device)
{
    ct_err err = {0};
    char path[512];
    const ct_model_options options = {.device = device, .compute = CT_CHOOSE_F32, .threads = 1};
    snprintf(path, sizeof path, CT_SOURCE_DIR "/tests/golden/%s", folder);
    assert_ok(ct_model_open(path, &options, model, &err));
}

static void places_hold_all_layers_and_states_and_each_counts_its_own_from_zero(void **state)
{
    (void)state;
    static const char *const folders[] = {"tiny-griffin", "tiny-jamba", "tiny-jamba-dense"};
    for (size_t f = 0; f < COUNT(folders); f++) {
        ct_model *one, *three;
        open_at(&one, folders[f], "cpu");
        open_at(&three, folders[f], "cpu+cpu+cpu");
        const ct_model_info *a = &one->info, *b = &three->info;
        assert_int_equal(three->n_places, 3);
        assert_int_equal(a->state_bytes_fixed, b->state_bytes_fixed);
        assert_int_equal(a->state_bytes_per_block, b->state_bytes_per_block);
        assert_int_equal(a->weight_bytes, b->weight_bytes);
        int64_t layer = 0, attention = 0, fixed = 0, block = 0, weights = 0;
        for (int p = 0; p < 3; p++) {
            const ct_place *place = &three->places[p];
            int64_t floats = 0, keys = 0;
            assert_int_equal(place->first_layer, layer);
            assert_int_equal(place->first_attention, attention);
            assert_true(place->n_layers > 0);
            for (; layer < place->first_layer + place->n_layers; layer++) {
                const ct_layer *l = &three->layers[layer];
                assert_int_equal(l->place, p);
                assert_int_equal(l->state_offset, floats);
                floats += l->state_floats;
                assert_int_equal(l->attention_index, one->layers[layer].attention_index);
                if (l->attention_index < 0) continue;
                assert_int_equal(l->kv_index, keys++);
                assert_int_equal(l->attention_index, attention + l->kv_index);
            }
            attention += keys;
            assert_int_equal(place->n_attention, keys);
            assert_int_equal(place->state_bytes, floats * (int64_t)sizeof(float));
            fixed += place->state_bytes, block += place->block_bytes;
            weights += place->weight_bytes;
        }
        assert_int_equal(layer, b->layers);
        assert_int_equal(attention, b->attention_layers);
        assert_int_equal(fixed, b->state_bytes_fixed);
        assert_int_equal(block, b->state_bytes_per_block);
        assert_int_equal(weights, b->weight_bytes); /* f32 as stored */
        assert_int_equal(one->places[0].weight_bytes, weights);
        ct_model_close(one);
        ct_model_close(three);
    }
}

static void more_places_than_layers_are_refused(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_model *model = NULL;
    ct_model_options options = {.device = "cpu+cpu+cpu+cpu+cpu+cpu+cpu+cpu+cpu+cpu+cpu+cpu"};
    assert_fails(ct_model_open(CT_SOURCE_DIR "/tests/golden/tiny-griffin", &options, &model, &err),
                 CT_ERR_VALUE,
                 "device: expected at most as many parts as the model has layers, 6, got 12");
    options.weights = "random:1";
    assert_fails(ct_model_open(CT_SOURCE_DIR "/tests/golden/tiny-griffin", &options, &model, &err),
                 CT_ERR_VALUE, "as the model has layers, 6, got 12");
    assert_null(model);
}

/* ---- a device of its own --------------------------------------------------------------------- */

/* As a GPU would say it, without one: device numbers are 10, 20, 30. */
static int64_t free_of(const ct_device *device)
{
    return (intptr_t)device * 1000000000; /* also where each of many cores has scratch memory */
}

static void become_gpus(ct_model *model, ct_ops *ops)
{
    *ops = *model->ops;
    ops->host_memory = false;
    ops->free_bytes = free_of;
    model->ops = ops;
    for (int p = 0; p < model->n_places; p++) {
        model->places[p].index = p;
        model->places[p].device = (ct_device *)(intptr_t)(10 * (p + 1));
    }
}

static void close_gpus(ct_model *model)
{
    for (int p = 0; p < model->n_places; p++) model->places[p].device = NULL;
    model->ops = ct_ops_cpu();
    ct_model_close(model);
}

/* Bytes that states may take so that every place has room for its part, of recurrent states alone and of
 * blocks alone. */
static void states_fit_on_every_place_whatever_they_are_made_of(void **state)
{
    (void)state;
    ct_model *model;
    ct_ops ops;
    open_at(&model, "tiny-jamba", "cpu+cpu+cpu");
    become_gpus(model, &ops);
    int64_t bytes = ct_model_free_bytes(model);
    assert_true(bytes > 0);
    const ct_model_info *info = &model->info;
    double tightest = 1e30;
    for (int p = 0; p < 3; p++) {
        const ct_place *place = &model->places[p];
        double room = (double)(free_of(place->device) - ct_place_working_bytes(model, p));
        double fixed = (double)place->state_bytes / (double)info->state_bytes_fixed;
        double block = (double)place->block_bytes / (double)info->state_bytes_per_block;
        assert_true((double)bytes * fixed <= room && (double)bytes * block <= room);
        if (fixed > 0 && room / fixed < tightest) tightest = room / fixed;
        if (block > 0 && room / block < tightest) tightest = room / block;
    }
    assert_true((double)bytes > tightest - 2); /* and not less than need be */
    model->places[1].index = 0;                /* two places on one device share what it has */
    model->places[1].device = model->places[0].device;
    int64_t shared = ct_model_free_bytes(model);
    assert_true(shared > 0 && shared < bytes);
    assert_int_equal(ct_place_free_bytes(model, 0), free_of(model->places[0].device) / 2);
    assert_int_equal(ct_place_free_bytes(model, 2), free_of(model->places[2].device));
    close_gpus(model);
}

static void a_described_model_leaves_room_for_the_weights_of_each_place(void **state)
{
    (void)state;
    ct_model *model;
    ct_ops ops;
    open_at(&model, "tiny-griffin", "cpu");
    become_gpus(model, &ops);
    int64_t loaded = ct_model_free_bytes(model);
    assert_int_equal(loaded, free_of(model->places[0].device) - ct_session_working_bytes(model));
    model->described = true;
    assert_int_equal(ct_model_free_bytes(model), loaded - model->info.weight_bytes);
    close_gpus(model);
}

/* Embeddings are with the first place, the head with the last: a tied one is listed again for it. */
static void tied_embeddings_go_to_both_ends(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_model *model;
    ct_ops ops;
    open_at(&model, "tiny-griffin", "cpu");
    assert_true(model->tied);
    ct_tensor_list list = {0};
    const int64_t shape[] = {model->info.vocab, model->info.width}, side[] = {4, 4};
    ct_matrix matrix = {.dtype = CT_F32};
    ct_tensor_list_add(&list, &err, 2, shape, 1, 0, "embeddings")->matrix = &model->embed;
    for (int64_t i = 0; i < model->info.layers; i++) {
        ct_tensor_spec *spec = ct_tensor_list_add(&list, &err, 2, side, 1, 0, "layer");
        spec->matrix = &matrix;
        spec->layer = i;
    }
    size_t n = list.n;
    int64_t table = model->info.vocab * model->info.width * 4;
    for (int places = 1; places <= 2; places++) {
        model->n_places = places;
        become_gpus(model, &ops);
        for (int p = 0; p < places; p++) model->places[p] = (ct_place){.index = p};
        assert_ok(ct_places_lay_out(model, &list, &err));
        int64_t half = model->info.layers * 16 * 4 / places;
        assert_int_equal(model->places[0].weight_bytes, table + half);
        if (places == 1) assert_int_equal(list.n, n);
    }
    assert_int_equal(model->places[1].weight_bytes, model->places[0].weight_bytes);
    assert_int_equal(list.n, n + 1);
    assert_string_equal(list.specs[n].name, "embeddings");
    assert_ptr_equal(list.specs[n].matrix, &model->head);
    assert_int_equal(ct_tensor_place(model, &list.specs[0]), 0);
    assert_int_equal(ct_tensor_place(model, &list.specs[n]), 1);
    free(list.specs);
    close_gpus(model);
}

/* ---- the same bits --------------------------------------------------------------------------- */

enum { ROWS = 3, LONGEST = 200, STEPS = 6 };

/* The device that the tests mean, or three places of the host's memory. */
static const char *several(void)
{
    const char *device = test_device("cpu");
    return strcmp(device, "cpu") ? device : "cpu+cpu+cpu";
}

/* Logits of all tokens of three prompts in one step, then of steps of generation, which a GPU records and
 * replays; and the kept heads of the last. */
static void run_rows(const fixture *f, float *logits, uint8_t *kept)
{
    ct_err err = {0};
    static const ct_span omitted[] = {{2, 40}};
    const ct_intervention how[ROWS] = {
        {.heads = {.keep = -1}},
        {.heads = {.keep = 1, .metric = CT_METRIC_ENTROPY, .active = {true, true}}},
        {.heads = {.keep = 2, .metric = CT_METRIC_RANDOM, .seed = 3, .active = {true, true}},
         .weights[CT_STAGE_GENERATION] = {CT_WEIGHTS_OMIT, omitted, 1}}};
    static const int64_t counts[ROWS] = {1, 65, LONGEST};
    int64_t vocab = f->info->vocab, layers_heads = f->info->attention_layers * f->info->heads;
    ct_row rows[ROWS];
    ct_sequence *sequences[ROWS] = {0};
    int32_t *ids[ROWS], next[ROWS];
    for (int r = 0; r < ROWS; r++) {
        ids[r] = random_ids(f, counts[r], (uint64_t)r);
        assert_ok(ct_sequence_new(f->model, &sequences[r], &err));
        rows[r] = (ct_row){.sequence = sequences[r],
                           .ids = ids[r],
                           .count = counts[r],
                           .intervention = &how[r],
                           .want = CT_LOGITS_ALL,
                           .logits = logits,
                           .heads_kept = kept + r * layers_heads};
        logits += counts[r] * vocab;
    }
    assert_ok(ct_step(f->session, rows, ROWS, &err));
    for (int t = 0; t < STEPS; t++) {
        for (int r = 0; r < ROWS; r++) {
            next[r] = 3 + (t * 7 + r) % 80;
            rows[r].ids = &next[r];
            rows[r].count = 1;
            rows[r].stage = CT_STAGE_GENERATION;
            rows[r].logits = logits;
            logits += vocab;
        }
        assert_ok(ct_step(f->session, rows, ROWS, &err));
    }
    for (int r = 0; r < ROWS; r++) {
        ct_sequence_free(sequences[r]);
        free(ids[r]);
    }
}

static void logits_and_heads_over_places_are_those_of_one_to_the_bit(void **state)
{
    (void)state;
    static const char *const folders[] = {"tiny-griffin", "tiny-jamba"};
    char first[16];
    snprintf(first, sizeof first, "%.*s", (int)strcspn(several(), "+"), several());
    for (size_t i = 0; i < 2 * COUNT(folders); i++) {
        ct_err err = {0};
        char path[512];
        float *logits[2];
        uint8_t *kept[2];
        size_t bytes = 0, of_heads = 0;
        snprintf(path, sizeof path, CT_SOURCE_DIR "/tests/golden/%s", folders[i / 2]);
        for (int k = 0; k < 2; k++) {
            fixture f;
            const ct_model_options options = {.device = k ? several() : first,
                                              .compute = i % 2 ? CT_CHOOSE_BF16 : CT_CHOOSE_F32};
            assert_ok(ct_model_open(path, &options, &f.model, &err));
            f.info = ct_model_get_info(f.model);
            assert_ok(ct_session_new(f.model, &f.session, &err));
            bytes = (size_t)((1 + 65 + LONGEST + ROWS * STEPS) * f.info->vocab) * sizeof(float);
            of_heads = (size_t)(ROWS * f.info->attention_layers * f.info->heads);
            logits[k] = calloc(1, bytes);
            kept[k] = calloc(1, of_heads);
            assert_true(logits[k] && kept[k]);
            run_rows(&f, logits[k], kept[k]);
            close_fixture(&f);
        }
        assert_memory_equal(logits[0], logits[1], bytes);
        assert_memory_equal(kept[0], kept[1], of_heads);
        for (int k = 0; k < 2; k++) free(logits[k]), free(kept[k]);
    }
}

/* ---- too little memory ----------------------------------------------------------------------- */

static int64_t allocs_left;

static void *few_allocs(ct_device *device, size_t bytes)
{
    return allocs_left-- > 0 ? ct_ops_cpu()->alloc(device, bytes) : NULL;
}

/* A sequence of 70 tokens, forked, both stepped on. */
static ct_status use_states(ct_model *model, ct_err *err)
{
    ct_status st = CT_OK;
    ct_session *session = NULL;
    ct_sequence *a = NULL, *b = NULL;
    int32_t ids[70];
    for (int i = 0; i < 70; i++) ids[i] = 3 + i;
    st = ct_session_new(model, &session, err);
    if (st == CT_OK) st = ct_sequence_new(model, &a, err);
    ct_row rows[2] = {{.sequence = a, .ids = ids, .count = 70}};
    if (st == CT_OK) st = ct_step(session, rows, 1, err);
    if (st == CT_OK) st = ct_sequence_fork(a, &b, err);
    rows[0].count = 1;
    rows[1] = rows[0];
    rows[1].sequence = b;
    if (st == CT_OK) st = ct_step(session, rows, 2, err);
    ct_sequence_free(a);
    ct_sequence_free(b);
    ct_session_free(session);
    return st;
}

static void memory_that_ends_on_any_place_is_an_error_and_leaves_nothing(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_model *model;
    open_at(&model, "tiny-griffin", "cpu+cpu+cpu");
    ct_ops ops = *model->ops;
    ops.alloc = few_allocs;
    model->ops = &ops;
    int64_t n = 0;
    for (;; n++) {
        allocs_left = n;
        ct_status st = use_states(model, &err);
        if (st == CT_OK) break;
        assert_int_equal(st, CT_ERR_MEMORY);
    }
    /* States of two sequences on 3 places, working memory and scratch of each, and blocks on the two that
     * attend. */
    assert_true(n >= 2 * 3 + 2 * 3 + 2 * 2);
    model->ops = ct_ops_cpu();
    ct_model_close(model);
}

/* ---- threads --------------------------------------------------------------------------------- */

enum { THREADS = 2, PROMPT = 70, TURNS = 40 };

typedef struct lane {
    ct_model *model;
    const ct_sequence *shared; /* forked by every lane, which then goes its own way */
    uint64_t seed;
    float *logits; /* [TURNS, V] */
    ct_status st;
    ct_err err;
} lane;

/* Heads are selected and keys written beside a shared block, so that all parts of a place are at work. */
static void *run_lane(void *user)
{
    lane *l = user;
    ct_session *session = NULL;
    ct_sequence *sequence = NULL;
    int64_t vocab = l->model->info.vocab;
    uint8_t kept[64];
    const ct_intervention heads = {
        .heads = {.keep = 1, .metric = CT_METRIC_ENTROPY, .active = {true, true}}};
    l->st = ct_session_new(l->model, &session, &l->err);
    if (l->st == CT_OK) l->st = ct_sequence_fork(l->shared, &sequence, &l->err);
    for (int t = 0; t < TURNS && l->st == CT_OK; t++) {
        int32_t ids[9];
        int64_t n = 1 + t % 9;
        for (int64_t i = 0; i < n; i++)
            ids[i] = 3 + (int32_t)(ct_rng_u64(l->seed, (uint64_t)t, (uint64_t)i) % 90);
        ct_row row = {.sequence = sequence,
                      .ids = ids,
                      .count = n,
                      .stage = CT_STAGE_GENERATION,
                      .intervention = &heads,
                      .want = CT_LOGITS_LAST,
                      .logits = l->logits + t * vocab,
                      .heads_kept = kept};
        l->st = ct_step(session, &row, 1, &l->err);
    }
    ct_sequence_free(sequence);
    ct_session_free(session);
    return NULL;
}

static void threads_that_step_different_sequences_get_what_each_gets_alone(void **state)
{
    (void)state;
    static const char *const folders[] = {"tiny-griffin", "tiny-jamba"};
    for (size_t f = 0; f < COUNT(folders); f++) {
        fixture one;
        ct_err err = {0};
        open_model(&one, folders[f], several(), 1);
        assert_true(one.info->attention_layers * one.info->heads <= 64);
        ct_sequence *shared = NULL;
        int32_t *ids = random_ids(&one, PROMPT, 5);
        assert_ok(ct_sequence_new(one.model, &shared, &err));
        ct_row row = {.sequence = shared, .ids = ids, .count = PROMPT};
        assert_ok(ct_step(one.session, &row, 1, &err));
        size_t bytes = (size_t)(TURNS * one.info->vocab) * sizeof(float);
        lane alone[THREADS], together[THREADS];
        pthread_t threads[THREADS];
        for (int i = 0; i < THREADS; i++) {
            alone[i] = (lane){.model = one.model, .shared = shared, .seed = (uint64_t)i};
            together[i] = alone[i];
            alone[i].logits = malloc(bytes);
            together[i].logits = malloc(bytes);
            assert_true(alone[i].logits && together[i].logits);
            run_lane(&alone[i]);
            if (alone[i].st != CT_OK) fail_msg("%s", alone[i].err.text);
        }
        for (int round = 0; round < 5; round++) {
            for (int i = 0; i < THREADS; i++)
                assert_int_equal(pthread_create(&threads[i], NULL, run_lane, &together[i]), 0);
            for (int i = 0; i < THREADS; i++) {
                assert_int_equal(pthread_join(threads[i], NULL), 0);
                if (together[i].st != CT_OK) fail_msg("%s", together[i].err.text);
                assert_memory_equal(together[i].logits, alone[i].logits, bytes);
            }
        }
        assert_memory_not_equal(alone[0].logits, alone[1].logits, bytes);
        for (int i = 0; i < THREADS; i++) free(alone[i].logits), free(together[i].logits);
        ct_sequence_free(shared);
        free(ids);
        close_fixture(&one);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_device_of_several_parts_has_a_place_for_each),
        cmocka_unit_test(devices_that_cannot_go_together_are_refused_with_what_is_expected),
        cmocka_unit_test(the_largest_place_is_as_small_as_any_split_makes_it),
        cmocka_unit_test(known_layers_are_split_where_one_would),
        cmocka_unit_test(places_hold_all_layers_and_states_and_each_counts_its_own_from_zero),
        cmocka_unit_test(more_places_than_layers_are_refused),
        cmocka_unit_test(states_fit_on_every_place_whatever_they_are_made_of),
        cmocka_unit_test(a_described_model_leaves_room_for_the_weights_of_each_place),
        cmocka_unit_test(tied_embeddings_go_to_both_ends),
        cmocka_unit_test(logits_and_heads_over_places_are_those_of_one_to_the_bit),
        cmocka_unit_test(memory_that_ends_on_any_place_is_an_error_and_leaves_nothing),
        cmocka_unit_test(threads_that_step_different_sequences_get_what_each_gets_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
