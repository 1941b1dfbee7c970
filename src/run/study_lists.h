/* study_lists.h - values of a study file that may be one or several: numbers, words, truth values,
 * names of models.
 *
 * Owns how a list or a range is read and that nothing stands in it twice. What the values mean is
 * study.c's to know. `what` is the key for errors, which name the line.
 */
#ifndef CT_RUN_STUDY_LISTS_H
#define CT_RUN_STUDY_LISTS_H

#include "io/yaml.h"
#include "run/study.h"

/* A number, a list of numbers, or a range. With `expand` false only the count is found (and every
 * value checked); with it true the values are made, the caller having seen that they are not too
 * many. */
ct_status ct_study_read_axis(const ct_yaml *y, const ct_yaml_node *node, const char *what,
                             int64_t min, int64_t max, bool step_is_one, bool expand,
                             ct_study_axis *out, ct_err *err) CT_CHECK;
/* A value twice would be the same cells, or files, twice: CT_ERR_VALUE. */
ct_status ct_study_check_distinct(const int64_t *values, size_t n, const char *what,
                                  ct_err *err) CT_CHECK;
/* One word or a list of them, each parsed by parse into out[i] of size item bytes; there are `max`
 * words in all. */
ct_status ct_study_read_words(const ct_yaml *y, const ct_yaml_node *node, const char *what,
                              ct_status (*parse)(const char *, const char *, void *, ct_err *),
                              void *out, size_t item, size_t max, size_t *count,
                              ct_err *err) CT_CHECK;
/* true, false, or a list of both. */
ct_status ct_study_read_bools(const ct_yaml *y, const ct_yaml_node *node, const char *what,
                              bool out[2], size_t *count, ct_err *err) CT_CHECK;
/* One of the study's models or a list of them, as bits by their place in names. */
ct_status ct_study_read_choices(const ct_yaml *y, const ct_yaml_node *node, const char *what,
                                const char *const *names, size_t n_names, uint32_t *chosen,
                                ct_err *err) CT_CHECK;
/* Adds where the value stands to an error of a parser that does not know the file. */
ct_status ct_study_at_line(const ct_yaml *y, int line, ct_status st, ct_err *err) CT_CHECK;

#endif
