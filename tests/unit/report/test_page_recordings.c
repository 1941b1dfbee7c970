/* test_page_recordings.c - recordings on the page: what is there, what is broken, and the n-th
 * allocation failing. */
#include "test.h"

#include "unit/io/alloc.h"

#include <sys/stat.h>
#include <unistd.h>

#include "cells.h"
#include "intervene/record.h"
#include "report/page_data.h"

static char folder[] = "/tmp/cortado-page-XXXXXX";

/* Recordings of a model of 2 attention layers and 3 heads, 2 rows of generation: of cell "a" one as it is
 * written, of cell "b" a file that is none. */
static void make_recordings(void)
{
    ct_err err = {0};
    const int64_t layers[] = {2, 5};
    const int32_t ids[5] = {2, 3, 4, 5, 6};
    const ct_span needle = {1, 3};
    const ct_record_options options = {.what =
                                           CT_RECORD_WEIGHTS | CT_RECORD_HEADS | CT_RECORD_LIGHT,
                                       .stages = {false, true},
                                       .steps = CT_RECORD_ALL,
                                       .needle = &needle,
                                       .n_needle = 1};
    const ct_record_shape shape = {
        .attention_layers = layers, .n_attention = 2, .heads = 3, .prefill = 3, .tokens = 5};
    ct_recording *r;
    assert_ok(ct_recording_new(&options, &shape, &r, &err));
    for (int64_t p = 3; p < 5; p++) {
        ct_record_part part = ct_recording_take(r, CT_STAGE_GENERATION, p, 1, true);
        float numbers[3] = {0.25f, 0.5f, 1};
        int32_t peak[3] = {0, 1, 2};
        const uint8_t kept[3] = {1, 0, 1};
        const ct_record_values values = {numbers, {numbers, numbers, numbers, peak}, kept};
        for (int64_t l = 0; l < 2; l++)
            ct_recording_note(r, CT_STAGE_GENERATION, part.row, l, &values);
    }
    char path[128];
    snprintf(path, sizeof path, "%s/recordings", folder);
    assert_int_equal(mkdir(path, 0777), 0);
    snprintf(path, sizeof path, "%s/recordings/a.safetensors", folder);
    assert_ok(ct_recording_write(r, path, ids, 5, false, &err));
    ct_recording_free(r);
    snprintf(path, sizeof path, "%s/recordings/b.safetensors", folder);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs("none", f);
    fclose(f);
}

static void recordings_are_on_the_page_and_no_failing_allocation_goes_unnoticed(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_stats *stats;
    assert_non_null(mkdtemp(folder));
    make_recordings();
    assert_ok(ct_stats_new(&stats, &err));
    const char *const keys[] = {"a", "b", "c"};
    for (int i = 0; i < 3; i++) {
        ct_cell c = cell_make(keys[i], i, 250, 0, 5);
        assert_ok(ct_stats_add(stats, &c, &err));
    }
    assert_ok(ct_stats_finish(stats, &err));
    ct_report_run run = {.dir = folder};
    const ct_report_runs runs = {.stats = stats, .runs = &run, .n = 1};
    for (long n = 1;; n++) {
        ct_buf out = {0};
        alloc_start(n);
        ct_status st = ct_page_recordings(&runs, &out, &err);
        alloc_stop();
        if (st == CT_OK) {
            assert_non_null(strstr(out.data, "\"position\":4,\"heads\":3,\"layers\":[2,5]"));
            assert_non_null(strstr(out.data, "\"kept\":[1,0,1,1,0,1]"));
            assert_non_null(strstr(out.data, "b.safetensors"));
            assert_non_null(strstr(out.data, "\"recorded\":[2,"));
        } else if (st != CT_ERR_MEMORY) {
            fail_msg("call %ld: %s: %s", n, ct_status_name(st), err.text);
        }
        ct_buf_clear(&out);
        if (st == CT_OK) {
            assert_true(n > 10);
            break;
        }
    }
    ct_stats_free(stats);
    const char *const names[] = {"a.safetensors", "b.safetensors", ""};
    for (int i = 0; i < 3; i++) {
        char path[128];
        snprintf(path, sizeof path, "%s/recordings/%s", folder, names[i]);
        assert_int_equal(remove(path), 0);
    }
    rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recordings_are_on_the_page_and_no_failing_allocation_goes_unnoticed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
