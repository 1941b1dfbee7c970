/* verbs.h - the verbs, one cmd_<verb>.c each: parse, call the library, print; nothing else. */
#ifndef CT_CLI_VERBS_H
#define CT_CLI_VERBS_H

#include "cli/args.h"

extern const ct_verb ct_verb_run, ct_verb_report, ct_verb_export, ct_verb_generate, ct_verb_prompts,
    ct_verb_score, ct_verb_tokenize, ct_verb_detokenize, ct_verb_inspect, ct_verb_synth,
    ct_verb_bench, ct_verb_eval;

#endif
