/* fuzz_yaml.c - any bytes as a study: refused with a text, or a study whose grid can be made. */
#include <stdint.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "run/grid.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static ct_status drop(void *user, const char *text, size_t size, ct_err *err)
{
    (void)user;
    (void)err;
    CT_ASSERT(ct_utf8_valid(text, size));
    return CT_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    ct_err err = {0};
    ct_study *study = NULL;
    ct_status st = ct_study_parse_bytes((const char *)bytes, size, "study.yaml", &study, &err);
    CT_ASSERT((st == CT_OK) == (study != NULL));
    if (st != CT_OK) {
        CT_ASSERT(err.status == st && err.text[0]);
        CT_ASSERT(ct_utf8_valid(err.text, strlen(err.text)));
        return 0;
    }
    for (size_t m = 0; m < study->n_models; m++) {
        ct_grid grid;
        CT_ASSERT(ct_grid_new(study, m, &grid, &err) == CT_OK);
        CT_ASSERT(grid.n_cells > 0 && grid.n_cells <= CT_STUDY_MAX_CELLS);
        ct_grid_clear(&grid);
    }
    CT_ASSERT(ct_study_describe(study, drop, NULL, &err) == CT_OK);
    ct_study_close(study);
    return 0;
}
