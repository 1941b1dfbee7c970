/* label.h - the words for a version: labels, captions, file names.
 *
 * Owns how a version is spoken of. A label says only what differs among the versions that stand
 * together, the caption says what they share; a slug (file name) says the same for a version
 * whatever stands beside it.
 */
#ifndef CT_REPORT_LABEL_H
#define CT_REPORT_LABEL_H

#include "base/buf.h"
#include "report/stats.h"

/* Fields by which versions differ, as bits. */
enum {
    CT_FIELD_MODEL = 1 << 0,
    CT_FIELD_STUDY = 1 << 1,
    CT_FIELD_STAGES = 1 << 2,
    CT_FIELD_METRIC = 1 << 3,
    CT_FIELD_WEIGHTS = 1 << 4,
    CT_FIELD_TEMPLATE = 1 << 5,
    CT_FIELD_READ_TWICE = 1 << 6,
    CT_FIELD_SEMANTICS = 1 << 7,
    CT_FIELD_SCORING = 1 << 8,
    CT_FIELD_SELECTION = 1 << 9, /* whether heads are selected at all */
};

/* The fields that a label needs to tell versions[indices[0..n)] apart (indices NULL: 0..n-1), and
 * in *all every field that differs. STUDY is needed only where nothing else tells two versions
 * apart, for studies are often named after what differs. */
unsigned ct_label_differing(const ct_stats *stats, const size_t *indices, size_t n, unsigned *all);

/* "generation", "prefill + generation, random heads", "omit \xE2\x80\x93 keep" (generation, then
 * prefill, as the thesis names them): the fields of `mask` in words; with an empty mask, what is
 * done to heads and weights. */
ct_status ct_label_version(const ct_stats_version *v, unsigned mask, ct_buf *out,
                           ct_err *err) CT_CHECK;

/* The fields not in `mask`, separated by "; ", for a caption. */
ct_status ct_label_shared(const ct_stats_version *v, unsigned mask, ct_buf *out,
                          ct_err *err) CT_CHECK;

/* A file name's part for each of the versions, such as "recurrentgemma-2b_generation_entropy":
 * small letters, digits, '-', '_' and '.' (not first), at most 100 bytes, all different. The caller
 * frees each and the array with ct_slugs_free. */
ct_status ct_label_slugs(const ct_stats *stats, char ***out, ct_err *err) CT_CHECK;
void ct_slugs_free(char **slugs, size_t n);

/* Appends a number with `digits` decimals, always with a point (printf follows the locale). */
ct_status ct_label_fixed(ct_buf *out, double value, int digits, ct_err *err) CT_CHECK;

#endif
