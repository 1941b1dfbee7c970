/* test_memory.c - a small run when memory runs out: for every allocation that fails, of cortado's own and of the
 * libraries it calls, an error or the outcome of a run that had enough, no leak, and no cell that is stored but not
 * whole.
 */
#define _XOPEN_SOURCE 700 /* nftw */
#include "tiny_run.h"

#include <ftw.h>

#include "io/safetensors.h"
#include "store/store.h"
#include "unit/io/alloc.h"

/* Two prompts, one needle apart in depth, so that they share a prefill; forks; an edit, a selection, a recording. */
#define SMALL                                                                                      \
    "study: small\nmodel: model\ntask:\n  niah:\n    haystack: essay.txt\n"                        \
    "    needle: \"\\nTea.\\n\"\n    question: Tea?\n    scoring: binary\n    buffer: 20\n"        \
    "    lengths: 130\n    depths: [50, 100]\n"                                                    \
    "generate: {max_new_tokens: 2, ignore_eos: true}\n"                                            \
    "interventions:\n"                                                                             \
    "  - heads: {keep: 1, metric: l2, stages: generation}\n"                                       \
    "  - weights: {generation: only, prefill: omit}\n"                                             \
    "record: {what: [weights, light, heads], interventions: 1}\n"

enum { CELLS = 4, RECORDINGS = 2 };

static ct_status small_run(const char *out, ct_err *err)
{
    ct_study *study = NULL;
    ct_run_result result;
    const ct_run_options options = {.out_dir = out, .threads = 1, .memory = 1 << 24};
    ct_status st = ct_study_parse_bytes(SMALL, strlen(SMALL), path_of("s.yaml"), &study, err);
    if (st == CT_OK) st = ct_run_study(study, &options, &result, err);
    if (st == CT_OK && result.failed + result.left > 0)
        fail_msg("%d failed (%s), %d left", (int)result.failed, result.first_error,
                 (int)result.left);
    ct_study_close(study);
    return st;
}

typedef struct kept {
    const char *out;
    int cells, recordings;
} kept;

/* A stored cell is done and whole, and so is its recording. */
static ct_status see(void *user, const ct_cell *cell, ct_err *outer)
{
    (void)outer;
    kept *k = user;
    ct_err err = {0};
    char path[256];
    k->cells++;
    if (cell->status != CT_CELL_DONE) fail_msg("stored as failed: %s", cell->error);
    assert_int_equal(cell->n_ids, 2);
    assert_true(cell->prompt[0] && cell->max_score > 0);
    snprintf(path, sizeof path, "%s/recordings/%s.safetensors", k->out, cell->key);
    if (access(path, F_OK) != 0) return CT_OK;
    ct_st_file *recording;
    assert_ok(ct_st_open(path, &recording, &err));
    ct_st_close(recording);
    k->recordings++;
    return CT_OK;
}

static kept look_into(const char *name)
{
    ct_err err = {0};
    ct_store *store;
    char path[64];
    kept k = {.out = path_of(name)};
    snprintf(path, sizeof path, "%s/run.sqlite", name);
    if (access(path_of(path), F_OK) != 0) return k;
    assert_ok(ct_store_open(path_of(path), true, &store, &err));
    assert_ok(ct_store_each(store, see, &k, &err));
    ct_store_close(store);
    return k;
}

static int remove_one(const char *path, const struct stat *info, int kind, struct FTW *walk)
{
    (void)info, (void)kind, (void)walk;
    return remove(path);
}

static void forget(const char *name)
{
    if (access(path_of(name), F_OK) == 0)
        assert_int_equal(nftw(path_of(name), remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
}

static void when_the_nth_allocation_fails_there_is_an_error_and_no_partial_record(void **state)
{
    (void)state;
    ct_err err = {0};
    char out[160];
    snprintf(out, sizeof out, "%s", path_of("cut"));
    /* Twice: what libraries set up once is there, and the weights' hash is remembered. */
    assert_ok(small_run(path_of("whole"), &err));
    assert_ok(small_run(path_of("again"), &err));
    char *whole = outcomes("whole");
    kept all = look_into("whole");
    assert_int_equal(all.cells, CELLS);
    assert_int_equal(all.recordings, RECORDINGS);
    int stored_some = 0, went_on = 0;
    for (long n = 1;; n++) {
        err = (ct_err){0};
        alloc_start(n);
        ct_status st = small_run(out, &err);
        alloc_stop();
        bool failed = alloc.calls >= n;
        if (alloc.live != 0)
            fail_msg("call %ld: %ld bytes are left (%s)", n, (long)alloc.live, err.text);
        kept k = look_into("cut");
        if (st == CT_OK) assert_int_equal(k.cells, CELLS);
        else if (err.status != st || !err.text[0]) fail_msg("call %ld: no text", n);
        else if (st != CT_ERR_MEMORY && st != CT_ERR_IO)
            fail_msg("call %ld: %s: %s", n, ct_status_name(st), err.text);
        stored_some += st != CT_OK && k.cells > 0;
        if (!failed) {
            assert_int_equal(st, CT_OK);
            print_message("%ld allocations; %d failing runs had stored cells\n", n - 1,
                          stored_some);
            assert_true(n > 1000);
            break;
        }
        /* Going on is the same code for every n: looked at for some, and wherever cells are stored. */
        if (n % 32 == 0 || (k.cells > 0 && went_on < 64)) {
            went_on += k.cells > 0;
            assert_ok(small_run(out, &err));
            char *now = outcomes("cut");
            assert_string_equal(whole, now);
            free(now);
        }
        forget("cut");
    }
    free(whole);
}

static int make_fast_folder(void **state)
{
    int st = make_folder(state);
    return st == 0 ? setenv("XDG_CACHE_HOME", dir, 1) : st;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(when_the_nth_allocation_fails_there_is_an_error_and_no_partial_record),
    };
    return cmocka_run_group_tests(tests, make_fast_folder, remove_folder);
}
