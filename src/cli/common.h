/* common.h - what several verbs share: reading inputs, lists of ids, models from options. */
#ifndef CT_CLI_COMMON_H
#define CT_CLI_COMMON_H

#include <jansson.h>

#include <cortado/engine.h>

#include "base/buf.h"
#include "cli/args.h"
#include "model/devices.h"

/* Options that open a model, for a verb's table. */
#define CT_OPTION_MODEL                                                                            \
    {                                                                                              \
        "--model", "-m", CT_ARG_TEXT, "DIR", "Model folder in Hugging Face format.", 0, 0          \
    }
#define CT_OPTION_DEVICE                                                                           \
    {                                                                                              \
        "--device", NULL, CT_ARG_TEXT, "NAME",                                                     \
            "Where to compute: cpu (default), cuda or cuda:N (a GPU), cuda:N+M (the layers of a "  \
            "model spread over several), or ref, the slow scalar reference.",                      \
            0, 0                                                                                   \
    }
/* Of a verb that spreads its work over several. */
#define CT_OPTION_DEVICES                                                                          \
    {                                                                                              \
        "--device", NULL, CT_ARG_TEXT, "NAME,...",                                                 \
            "Where to compute: cpu (default), cuda or cuda:N (a GPU), cuda:N+M (the layers of a "  \
            "model spread over several), or ref, the slow scalar reference. With several "         \
            "(cuda:0,1) a copy of the model lies on each and the cells are spread over them, "     \
            "with the same outcomes; cuda:all: as many copies as the GPUs there hold.",            \
            0, 0                                                                                   \
    }
#define CT_OPTION_WEIGHTS                                                                          \
    {                                                                                              \
        "--weights", NULL, CT_ARG_TEXT, "random:SEED",                                             \
            "Random weights instead of the folder's, made in the device's memory: the numbers of " \
            "`cortado synth --seed SEED` (random:SEED:f32: those of --dtype f32). The folder "     \
            "needs config.json, and tokenizer files where text is read or written.",               \
            0, 0                                                                                   \
    }
#define CT_OPTION_THREADS                                                                          \
    {                                                                                              \
        "--threads", NULL, CT_ARG_INT, "N", "Threads (default: all cores).", 1, 1024               \
    }
#define CT_OPTION_COMPUTE                                                                          \
    {                                                                                              \
        "--compute", NULL, CT_ARG_CHOICE, "auto|f32|bf16",                                         \
            "Arithmetic of matrix products. auto (default): bf16 for bf16 weights where the CPU "  \
            "has AMX and on a GPU, "                                                               \
            "else f32.",                                                                           \
            0, 0                                                                                   \
    }
#define CT_OPTION_WINDOW                                                                           \
    {                                                                                              \
        "--window-visible", NULL, CT_ARG_INT, "W",                                                 \
            "Tokens that a query of local attention sees, itself counted, as transformers 5 "      \
            "counts its "                                                                          \
            "window (default: the config's window and the token itself).",                         \
            1, 2147483648.0                                                                        \
    }

#define CT_OPTION_CHAT                                                                             \
    {                                                                                              \
        "--chat", NULL, CT_ARG_FLAG, NULL,                                                         \
            "Take the text as a user's message and put it into the model's chat template.", 0, 0   \
    }

/* What --device, --compute, --threads and --weights say. */
ct_model_options ct_cli_model_options(const ct_args *args);
/* The same with the one device, written to `device`, that --device means for the model in `dir` (NULL:
 * none in particular). */
ct_status ct_cli_model_options_one(const ct_args *args, const char *dir,
                                   char device[CT_DEVICE_NAME], ct_model_options *out,
                                   ct_err *err) CT_CHECK;
/* Opens the model that --model names with these and --window-visible, after a warning if its weights are larger than memory. */
ct_status ct_cli_open_model(const ct_args *args, ct_model **model, ct_err *err) CT_CHECK;

/* Prints one line on stderr if the model's mapped weights are larger than the memory that is available. */
void ct_cli_warn_memory(const ct_args *args, const ct_model *model);
/* The warning's text: weights of so many bytes, of which a token alone reads so many, that come from
 * storage at `rate` bytes a second (0: not known); "" if they fit. */
void ct_cli_memory_text(char *out, size_t size, int64_t weights, int64_t read_per_token,
                        int64_t available, double rate);
/* A size for people: "1.5 GiB". */
const char *ct_cli_bytes(char out[32], int64_t bytes);

/* Replaces *text (freed) by the chat template of the tokenizer with it as the user's message. */
ct_status ct_cli_chat(const ct_tokenizer *tokenizer, char **text, size_t *size,
                      ct_err *err) CT_CHECK;

/* The bytes of a file, or of standard input if path is NULL or "-". NUL-terminated; the caller
 * frees. */
ct_status ct_cli_read(const char *path, char **data, size_t *size, ct_err *err) CT_CHECK;

/* Parses "1,2,3" (also blanks, newlines, brackets between the numbers) to ids; the caller frees. */
ct_status ct_cli_parse_ids(const char *text, const char *what, int32_t **ids, size_t *count,
                           ct_err *err) CT_CHECK;
/* Parses "5,6,7" or "5-9,30-37" to sorted, disjoint spans; the caller frees. */
ct_status ct_cli_parse_spans(const char *text, const char *what, ct_span **spans, size_t *count,
                             ct_err *err) CT_CHECK;

/* A JSON array of ids; NULL if out of memory. */
json_t *ct_cli_ids_json(const int32_t *ids, size_t count);
/* A JSON string; bytes that are not UTF-8 become U+FFFD. */
json_t *ct_cli_text_json(const char *text, size_t size);
/* Prints the object on one line and drops it. */
ct_status ct_cli_print_json(json_t *object, ct_err *err) CT_CHECK;

/* True if DIR/name exists. */
bool ct_cli_has_file(const char *dir, const char *name);

#endif
