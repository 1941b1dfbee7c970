/* glue.c - the tasks of GLUE and their files. See choice.h.
 *
 * Texts and metrics are those of lm-evaluation-harness 0.4. Two layouts are read: the TSV files that GLUE
 * publishes, whose labels are words for some tasks, and JSON lines with the fields of the Hugging Face
 * dataset, whose labels are the choices' indices.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "io/csv.h"
#include "io/file.h"
#include "io/json.h"
#include "task/choice_set.h"

enum { MAX_FIELDS = 2 };

/* Where a task's texts are, and what is asked about them. */
typedef struct task {
    ct_subject_kind kind;
    const char *tsv, *jsonl; /* below DIR */
    bool no_header;          /* CoLA's TSV: source, label, mark, sentence */
    const char *tsv_fields[MAX_FIELDS + 1],
        *json_fields[MAX_FIELDS]; /* the last of TSV: the label */
    const char *labels[3];        /* the TSV's words for the choices; NULL: numbers */
    const char *form; /* %1 and %2: the texts; %.: the second one stripped, with a full stop */
} task;

static const task tasks[] = {
    {{"cola", "", {"no", "yes"}, 2, CT_CHOICE_MATTHEWS},
     "CoLA/dev.tsv",
     "cola.jsonl",
     true,
     {"sentence", NULL, "label"},
     {"sentence", NULL},
     {0},
     "%1\nQuestion: Does this sentence make sense?\nAnswer:"},
    {{"mnli", "", {"True", "Neither", "False"}, 3, CT_CHOICE_ACCURACY},
     "MNLI/dev_matched.tsv",
     "mnli.jsonl",
     false,
     {"sentence1", "sentence2", "gold_label"},
     {"premise", "hypothesis"},
     {"entailment", "neutral", "contradiction"},
     "%1\nQuestion: %. True, False or Neither?\nAnswer:"},
    {{"mnli_mismatch", "", {"True", "Neither", "False"}, 3, CT_CHOICE_ACCURACY},
     "MNLI/dev_mismatched.tsv",
     "mnli_mismatch.jsonl",
     false,
     {"sentence1", "sentence2", "gold_label"},
     {"premise", "hypothesis"},
     {"entailment", "neutral", "contradiction"},
     "%1\nQuestion: %. True, False or Neither?\nAnswer:"},
    {{"mrpc", "", {"no", "yes"}, 2, CT_CHOICE_F1},
     "MRPC/dev.tsv",
     "mrpc.jsonl",
     false,
     {"#1 String", "#2 String", "Quality"},
     {"sentence1", "sentence2"},
     {0},
     "Sentence 1: %1\nSentence 2: %2\nQuestion: Do both sentences mean the same thing?\nAnswer:"},
    {{"qnli", "", {"yes", "no"}, 2, CT_CHOICE_ACCURACY},
     "QNLI/dev.tsv",
     "qnli.jsonl",
     false,
     {"question", "sentence", "label"},
     {"question", "sentence"},
     {"entailment", "not_entailment"},
     "%1\n%2\nQuestion: Does this response answer the question?\nAnswer:"},
    {{"qqp", "", {"no", "yes"}, 2, CT_CHOICE_F1},
     "QQP/dev.tsv",
     "qqp.jsonl",
     false,
     {"question1", "question2", "is_duplicate"},
     {"question1", "question2"},
     {0},
     "Question 1: %1\nQuestion 2: %2\nQuestion: Do both questions ask the same thing?\nAnswer:"},
    {{"rte", "", {"True", "False"}, 2, CT_CHOICE_ACCURACY},
     "RTE/dev.tsv",
     "rte.jsonl",
     false,
     {"sentence1", "sentence2", "label"},
     {"sentence1", "sentence2"},
     {"entailment", "not_entailment"},
     "%1\nQuestion: %2 True or False?\nAnswer:"},
    {{"sst2", "", {"negative", "positive"}, 2, CT_CHOICE_ACCURACY},
     "SST-2/dev.tsv",
     "sst2.jsonl",
     false,
     {"sentence", NULL, "label"},
     {"sentence", NULL},
     {0},
     "%1\nQuestion: Is this sentence positive or negative?\nAnswer:"},
    {{"wnli", "", {"False", "True"}, 2, CT_CHOICE_ACCURACY},
     "WNLI/dev.tsv",
     "wnli.jsonl",
     false,
     {"sentence1", "sentence2", "label"},
     {"sentence1", "sentence2"},
     {0},
     "%1\nQuestion: %2 True or False?\nAnswer:"},
};
enum { N_TASKS = sizeof tasks / sizeof *tasks };

typedef struct reading {
    const ct_choice_options *options;
    const task *task;
    const char *path;
    ct_choice_set *set;
    bool header_read;
    size_t columns;
    size_t at[MAX_FIELDS + 1]; /* the columns of the texts and of the label */
} reading;

static ct_status question_text(const task *t, const char *const *texts, char **out, ct_err *err)
{
    ct_buf text = {0};
    ct_status st = CT_OK;
    for (const char *p = t->form; *p; p++) {
        if (*p != '%') {
            CT_TRY(ct_buf_add(&text, p, 1, err));
        } else if (*++p == '.') {
            CT_TRY(ct_choice_add_stripped(&text, texts[1], err));
            if (text.size == 0 || text.data[text.size - 1] != '.')
                CT_TRY(ct_buf_adds(&text, ".", err));
        } else {
            CT_TRY(ct_buf_adds(&text, texts[*p - '1'], err));
        }
    }
    *out = ct_buf_take(&text);
    if (!*out) st = ct_fail_memory(err, "question", text.size);
done:
    ct_buf_clear(&text);
    return st;
}

static ct_status add_question(reading *r, const char *const *texts, int gold, ct_err *err)
{
    char *text;
    ct_status st = question_text(r->task, texts, &text, err);
    return st == CT_OK ? ct_choice_add_question(r->set, text, gold, err) : st;
}

/* ---- TSV ------------------------------------------------------------------------------------- */

static ct_status find_columns(reading *r, const ct_csv_row *row, ct_err *err)
{
    for (int f = 0; f <= MAX_FIELDS; f++) {
        const char *name = r->task->tsv_fields[f];
        if (!name) continue;
        size_t i = 0;
        while (i < row->n && strcmp(row->fields[i], name)) i++;
        if (i == row->n)
            return ct_fail(err, CT_ERR_FORMAT,
                           "%s: expected a column \"%s\" in the first line, got none; is this "
                           "GLUE's own file?",
                           r->path, name);
        r->at[f] = i;
    }
    r->columns = row->n;
    r->header_read = true;
    return CT_OK;
}

static ct_status read_label(const reading *r, const char *word, int64_t line, int *gold,
                            ct_err *err)
{
    const task *t = r->task;
    for (*gold = 0; *gold < (int)t->kind.n_choices; ++*gold) {
        const char number[] = {(char)('0' + *gold), 0};
        if (!strcmp(word, t->labels[0] ? t->labels[*gold] : number)) return CT_OK;
    }
    return ct_fail(err, CT_ERR_FORMAT,
                   "%s: expected a label of %s (%s ...), got \"%.40s\" (line %" PRId64
                   "); test files have none: use the validation split",
                   r->path, t->kind.name, t->labels[0] ? t->labels[0] : "0, 1", word, line);
}

static ct_status add_row(void *user, const ct_csv_row *row, ct_err *err)
{
    reading *r = user;
    int gold;
    if (!r->header_read) return find_columns(r, row, err);
    if (ct_choice_is_full(r->options, r->set)) return CT_OK;
    if (row->n != r->columns)
        return ct_fail(err, CT_ERR_FORMAT, "%s: expected %zu fields, got %zu (line %" PRId64 ")",
                       r->path, r->columns, row->n, row->line);
    ct_status st = read_label(r, row->fields[r->at[MAX_FIELDS]], row->line, &gold, err);
    const char *const texts[] = {row->fields[r->at[0]], row->fields[r->at[1]]};
    return st == CT_OK ? add_question(r, texts, gold, err) : st;
}

static ct_status read_tsv(reading *r, ct_err *err)
{
    if (r->task->no_header) {
        r->header_read = true;
        r->columns = 4;
        r->at[0] = 3, r->at[MAX_FIELDS] = 1;
    }
    return ct_csv_each(r->path, CT_CHOICE_FILE_BYTES, CT_CSV_TAB, add_row, r, err);
}

/* ---- JSON lines ------------------------------------------------------------------------------ */

static ct_status add_object(reading *r, const json_t *object, const char *where, ct_err *err)
{
    const char *texts[MAX_FIELDS] = {0};
    int64_t gold = -1;
    ct_status st = CT_OK;
    for (int f = 0; f < MAX_FIELDS; f++)
        if (r->task->json_fields[f])
            CT_TRY(ct_json_text(object, r->task->json_fields[f], true, where, &texts[f], err));
    CT_TRY(ct_json_int(object, "label", true, 0, (int64_t)r->task->kind.n_choices - 1, where, &gold,
                       err));
    CT_TRY(add_question(r, texts, (int)gold, err));
done:
    return st;
}

static ct_status read_jsonl(reading *r, ct_err *err)
{
    char *text = NULL;
    size_t size, line = 0;
    ct_status st = ct_file_read(r->path, CT_CHOICE_FILE_BYTES, &text, &size, err);
    if (st != CT_OK) return st;
    for (const char *at = text, *end = text + size; at < end;) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        if (!stop) stop = end;
        line++;
        bool blank = strspn(at, " \t\r") >= (size_t)(stop - at);
        if (!blank && !ct_choice_is_full(r->options, r->set)) {
            json_t *object = NULL;
            char *where = ct_strf(err, "%s, line %zu", r->path, line);
            st =
                where ? ct_json_parse(at, (size_t)(stop - at), where, &object, err) : CT_ERR_MEMORY;
            if (st == CT_OK) st = add_object(r, object, where, err);
            json_decref(object);
            free(where);
            if (st != CT_OK) goto done;
        }
        at = stop + 1;
    }
done:
    free(text);
    return st;
}

/* ---- the whole ------------------------------------------------------------------------------- */

static bool exists(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0;
}

/* Reads a task if one of its files is there; if none is, that is an error where it was named. */
static ct_status read_task(const ct_choice_options *options, const task *t, bool named,
                           ct_choice_set *set, ct_err *err)
{
    ct_status st = CT_OK;
    reading r = {.options = options, .task = t, .set = set};
    char *tsv = ct_path_join(options->dir, t->tsv, err);
    char *jsonl = ct_path_join(options->dir, t->jsonl, err);
    if (!tsv || !jsonl) {
        st = CT_ERR_MEMORY;
        goto done;
    }
    bool is_tsv = exists(tsv);
    r.path = is_tsv ? tsv : jsonl;
    if (!is_tsv && !exists(jsonl)) {
        if (named)
            st = ct_fail(err, CT_ERR_NOT_FOUND, "glue: %s: expected %s or %s, got neither",
                         t->kind.name, tsv, jsonl);
        goto done;
    }
    CT_TRY(ct_choice_add_subject(set, &t->kind, err));
    CT_TRY(is_tsv ? read_tsv(&r, err) : read_jsonl(&r, err));
    if (set->subjects[set->n_subjects - 1].count == 0)
        CT_TRY(ct_fail(err, CT_ERR_FORMAT, "%s: expected questions, got none", r.path));
done:
    free(tsv);
    free(jsonl);
    return st;
}

ct_status ct_glue_open(const ct_choice_options *options, ct_choice_set *out, ct_err *err)
{
    ct_subject_kind kinds[N_TASKS];
    ct_status st;
    bool named;
    *out = (ct_choice_set){0};
    for (size_t i = 0; i < N_TASKS; i++) kinds[i] = tasks[i].kind;
    if (options->shots != 0)
        return ct_fail(
            err, CT_ERR_UNSUPPORTED,
            "glue: expected 0 shots, got %d: its shots are drawn from the training split",
            options->shots);
    CT_TRY(ct_choice_check_subjects(options, "glue", kinds, N_TASKS, err));
    for (size_t i = 0; i < N_TASKS; i++)
        if (ct_choice_wants(options, tasks[i].kind.name, &named))
            CT_TRY(read_task(options, &tasks[i], named, out, err));
    if (out->n_subjects == 0)
        CT_TRY(ct_fail(err, CT_ERR_NOT_FOUND,
                       "glue: expected %s/%s or %s/%s or those of another task, got none",
                       options->dir, tasks[0].tsv, options->dir, tasks[0].jsonl));
done:
    if (st != CT_OK) ct_choice_set_clear(out);
    return st;
}
