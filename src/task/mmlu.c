/* mmlu.c - the 57 subjects of MMLU and their files. See choice.h.
 *
 * Texts, shots and groups are those of lm-evaluation-harness 0.4 (task version 1.0).
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "io/csv.h"
#include "io/file.h"
#include "task/choice_set.h"

#define LETTERS {"A", "B", "C", "D"}, 4, CT_CHOICE_ACCURACY
#define STEM(name)                                                                                 \
    {                                                                                              \
        name, "stem", LETTERS                                                                      \
    }
#define HUMAN(name)                                                                                \
    {                                                                                              \
        name, "humanities", LETTERS                                                                \
    }
#define SOCIAL(name)                                                                               \
    {                                                                                              \
        name, "social_sciences", LETTERS                                                           \
    }
#define OTHER(name)                                                                                \
    {                                                                                              \
        name, "other", LETTERS                                                                     \
    }

static const ct_subject_kind kinds[] = {
    STEM("abstract_algebra"),
    STEM("anatomy"),
    STEM("astronomy"),
    OTHER("business_ethics"),
    OTHER("clinical_knowledge"),
    STEM("college_biology"),
    STEM("college_chemistry"),
    STEM("college_computer_science"),
    STEM("college_mathematics"),
    OTHER("college_medicine"),
    STEM("college_physics"),
    STEM("computer_security"),
    STEM("conceptual_physics"),
    SOCIAL("econometrics"),
    STEM("electrical_engineering"),
    STEM("elementary_mathematics"),
    HUMAN("formal_logic"),
    OTHER("global_facts"),
    STEM("high_school_biology"),
    STEM("high_school_chemistry"),
    STEM("high_school_computer_science"),
    HUMAN("high_school_european_history"),
    SOCIAL("high_school_geography"),
    SOCIAL("high_school_government_and_politics"),
    SOCIAL("high_school_macroeconomics"),
    STEM("high_school_mathematics"),
    SOCIAL("high_school_microeconomics"),
    STEM("high_school_physics"),
    SOCIAL("high_school_psychology"),
    STEM("high_school_statistics"),
    HUMAN("high_school_us_history"),
    HUMAN("high_school_world_history"),
    OTHER("human_aging"),
    SOCIAL("human_sexuality"),
    HUMAN("international_law"),
    HUMAN("jurisprudence"),
    HUMAN("logical_fallacies"),
    STEM("machine_learning"),
    OTHER("management"),
    OTHER("marketing"),
    OTHER("medical_genetics"),
    OTHER("miscellaneous"),
    HUMAN("moral_disputes"),
    HUMAN("moral_scenarios"),
    OTHER("nutrition"),
    HUMAN("philosophy"),
    HUMAN("prehistory"),
    OTHER("professional_accounting"),
    HUMAN("professional_law"),
    OTHER("professional_medicine"),
    SOCIAL("professional_psychology"),
    SOCIAL("public_relations"),
    SOCIAL("security_studies"),
    SOCIAL("sociology"),
    SOCIAL("us_foreign_policy"),
    OTHER("virology"),
    HUMAN("world_religions"),
};
enum { N_KINDS = sizeof kinds / sizeof *kinds };

/* A file on its way into a set: its rows are shots until there are enough, or questions. */
typedef struct reading {
    const ct_choice_options *options;
    const char *path;
    ct_choice_set *set;
    bool shots;
} reading;

static ct_status question_text(char *const *fields, char **out, ct_err *err)
{
    ct_buf text = {0};
    ct_status st;
    CT_TRY(ct_choice_add_stripped(&text, fields[0], err));
    for (int i = 0; i < 4; i++) CT_TRY(ct_buf_addf(&text, err, "\n%c. %s", 'A' + i, fields[1 + i]));
    CT_TRY(ct_buf_adds(&text, "\nAnswer:", err));
    *out = ct_buf_take(&text);
    if (!*out) st = ct_fail_memory(err, "question", text.size);
done:
    ct_buf_clear(&text);
    return st;
}

static ct_status add_row(void *user, const ct_csv_row *row, ct_err *err)
{
    reading *r = user;
    ct_subject *subject = &r->set->subjects[r->set->n_subjects - 1];
    if (row->n != 6)
        return ct_fail(err, CT_ERR_FORMAT,
                       "%s: expected 6 fields (question, four choices, letter), got %zu (line "
                       "%" PRId64 ")",
                       r->path, row->n, row->line);
    const char *letter = row->fields[5];
    if (letter[0] < 'A' || letter[0] > 'D' || letter[1])
        return ct_fail(err, CT_ERR_FORMAT,
                       "%s: expected the right choice's letter, A to D, got \"%.20s\" (line "
                       "%" PRId64 ")",
                       r->path, letter, row->line);
    bool enough = r->shots ? (int)subject->n_shots == r->options->shots
                           : ct_choice_is_full(r->options, r->set);
    char *text;
    if (enough) return CT_OK;
    ct_status st = question_text(row->fields, &text, err);
    if (st != CT_OK) return st;
    if (!r->shots) return ct_choice_add_question(r->set, text, letter[0] - 'A', err);
    subject->shots[subject->n_shots++] = (ct_question){.text = text, .gold = letter[0] - 'A'};
    return CT_OK;
}

/* DIR/split/NAME_split.csv. */
static ct_status read_split(reading *r, const char *name, const char *split, ct_err *err)
{
    char *path = ct_strf(err, "%s/%s/%s_%s.csv", r->options->dir, split, name, split);
    if (!path) return CT_ERR_MEMORY;
    r->path = path;
    ct_status st = ct_csv_each(path, CT_CHOICE_FILE_BYTES, CT_CSV_COMMA, add_row, r, err);
    free(path);
    return st;
}

static ct_status read_subject(const ct_choice_options *options, const ct_subject_kind *kind,
                              ct_choice_set *set, ct_err *err)
{
    reading r = {.options = options, .set = set};
    ct_status st;
    CT_TRY(ct_choice_add_subject(set, kind, err));
    ct_subject *s = &set->subjects[set->n_subjects - 1];
    free(s->description);
    s->description = ct_strf(err,
                             "The following are multiple choice questions (with answers) about "
                             "%s.\n\n",
                             kind->name);
    if (!s->description) return CT_ERR_MEMORY;
    char *name = strstr(s->description, kind->name);
    for (size_t i = 0; kind->name[i]; i++)
        if (name[i] == '_') name[i] = ' ';
    r.shots = true;
    if (options->shots > 0) CT_TRY(read_split(&r, kind->name, "dev", err));
    if ((int)s->n_shots < options->shots)
        CT_TRY(ct_fail(err, CT_ERR_VALUE,
                       "%s/dev/%s_dev.csv: expected %d rows for the shots, got %zu", options->dir,
                       kind->name, options->shots, s->n_shots));
    r.shots = false;
    CT_TRY(read_split(&r, kind->name, "test", err));
    if (s->count == 0)
        CT_TRY(ct_fail(err, CT_ERR_FORMAT, "%s/test/%s_test.csv: expected questions, got none",
                       options->dir, kind->name));
done:
    return st;
}

ct_status ct_mmlu_open(const ct_choice_options *options, ct_choice_set *out, ct_err *err)
{
    ct_status st;
    bool named;
    *out = (ct_choice_set){0};
    if (options->shots < 0 || options->shots > CT_SHOTS_MAX)
        return ct_fail(err, CT_ERR_VALUE, "mmlu: expected 0 to %d shots, got %d", CT_SHOTS_MAX,
                       options->shots);
    CT_TRY(ct_choice_check_subjects(options, "mmlu", kinds, N_KINDS, err));
    for (size_t i = 0; i < N_KINDS; i++)
        if (ct_choice_wants(options, kinds[i].name, &named))
            CT_TRY(read_subject(options, &kinds[i], out, err));
done:
    if (st != CT_OK) ct_choice_set_clear(out);
    return st;
}
