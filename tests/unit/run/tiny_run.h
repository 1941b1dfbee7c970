/* tiny_run.h - studies on the small golden model, for the tests of the run layer.
 *
 * The model is tests/golden/tiny-griffin (random weights, 97 tokens, 3 heads) with the tokenizer
 * of tests/data/letters, one token a character, in a folder that goes away. Its answers mean nothing.
 */
#ifndef CT_TESTS_RUN_TINY_RUN_H
#define CT_TESTS_RUN_TINY_RUN_H

#include "test.h"

#include <unistd.h>

#include <cortado/lab.h>

#include "base/buf.h"
#include "run/study.h"

#define TINY    CT_SOURCE_DIR "/tests/golden/tiny-griffin"
#define LETTERS CT_SOURCE_DIR "/tests/data/letters/tokenizer.json"

static char dir[64]; /* holds model/, essay.txt and the runs */

static inline const char *path_of(const char *name)
{
    static char paths[8][160];
    static unsigned next;
    char *path = paths[next++ % 8];
    snprintf(path, 160, "%s/%s", dir, name);
    return path;
}

static inline void write_file(const char *name, const char *text)
{
    FILE *f = fopen(path_of(name), "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
    fclose(f);
}

static inline int make_folder(void **state)
{
    (void)state;
    if (access(TINY "/model.safetensors", R_OK) != 0) skip_program(TINY);
    /* In memory where that is possible: every run fsyncs. */
    snprintf(dir, sizeof dir, "%s/cortado-run-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    if (!mkdtemp(dir) || mkdir(path_of("model"), 0777) != 0) return -1;
    if (symlink(TINY "/config.json", path_of("model/config.json")) != 0) return -1;
    if (symlink(TINY "/model.safetensors", path_of("model/model.safetensors")) != 0) return -1;
    if (symlink(LETTERS, path_of("model/tokenizer.json")) != 0) return -1;
    ct_buf essay = {0};
    for (int i = 0; i < 40; i++)
        if (ct_buf_addf(&essay, NULL, "Sentence %d tells of tea, rain and 'quoted' ships. ", i))
            return -1;
    write_file("essay.txt", essay.data);
    ct_buf_clear(&essay);
    return 0;
}

static inline int remove_folder(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    return system(command);
}

#define STUDY(name, rest)                                                                          \
    "study: " name "\nmodel: model\ntask:\n  niah:\n    haystack: essay.txt\n"                     \
    "    needle: \"\\nTea is kept in the blue tin.\\n\"\n    question: Where is tea?\n"            \
    "    scoring: binary\n    buffer: 20\n    lengths: [90, 163]\n    depths: [0, 50, 100]\n" rest

static inline ct_study *study_of(const char *text)
{
    ct_err err = {0};
    ct_study *study;
    assert_ok(ct_study_parse_bytes(text, strlen(text), path_of("s.yaml"), &study, &err));
    return study;
}

static inline ct_status append(void *user, const char *bytes, size_t size, ct_err *err)
{
    return ct_buf_add(user, bytes, size, err);
}

/* The export without its last three columns, which are times. */
static inline char *outcomes(const char *out)
{
    ct_err err = {0};
    ct_buf all = {0}, kept = {0};
    assert_ok(ct_run_export(path_of(out), CT_EXPORT_JSONL, append, &all, &err));
    for (char *line = all.data ? strtok(all.data, "\n") : NULL; line; line = strtok(NULL, "\n")) {
        char *times = strstr(line, ",\"prefill_ms\"");
        assert_non_null(times);
        *times = 0;
        assert_ok(ct_buf_addf(&kept, &err, "%s\n", line));
    }
    ct_buf_clear(&all);
    return ct_buf_take(&kept);
}

#endif
