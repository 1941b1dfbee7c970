/* generate.c - uses libcortado: one prompt on the demo model, with four heads kept in every
 * attention layer while the answer is generated. With a prefix that the linker does not know, set
 * PKG_CONFIG_PATH=PREFIX/lib/pkgconfig and LD_LIBRARY_PATH=PREFIX/lib.
 *
 *   cc generate.c $(pkg-config --cflags --libs cortado) -o generate
 *   ./generate PREFIX/share/cortado/models/griffin-demo 'CONTEXT: It rained all week.
 *   The best thing to do in Oslo is feed the ducks and read on a bench on a cold morning.
 *   The ferry was late.
 *
 *   QUESTION: What is the best thing to do in Oslo?
 *
 *   ANSWER: Here is the most relevant sentence in the context: '
 */
#include <cortado/engine.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
    if (argc != 3) return fprintf(stderr, "usage: generate MODEL PROMPT\n"), 2;
    ct_err err = {0};
    ct_model *model = NULL;
    ct_tokenizer *tokenizer = NULL;
    ct_session *session = NULL;
    ct_job *job = NULL;
    int32_t *prompt = NULL;
    size_t n_prompt, n_ids;
    char *text = NULL;
    int failed =
        ct_model_open(argv[1], NULL, &model, &err) ||
        ct_tokenizer_open(argv[1], &tokenizer, &err) || ct_session_new(model, &session, &err) ||
        ct_tokenizer_encode(tokenizer, argv[2], strlen(argv[2]), true, &prompt, &n_prompt, &err);
    if (!failed) {
        ct_generate_request request = {
            .prompt = prompt,
            .prompt_count = n_prompt,
            .max_new_tokens = 40,
            .eos = 1,
            .intervention.heads = {.active = {false, true}, .keep = 4, .metric = CT_METRIC_ENTROPY},
        };
        failed = ct_generate(session, &request, &job, &err);
    }
    if (!failed) {
        const int32_t *ids = ct_job_ids(job, &n_ids);
        failed = ct_tokenizer_decode(tokenizer, ids, n_ids, true, &text, &(size_t){0}, &err);
    }
    if (failed) fprintf(stderr, "generate: %s\n", err.text);
    else printf("%s\n", text);
    free(text);
    free(prompt);
    ct_job_free(job);
    ct_session_free(session);
    ct_tokenizer_close(tokenizer);
    ct_model_close(model);
    return failed != 0;
}
