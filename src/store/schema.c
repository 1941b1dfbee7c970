/* schema.c - the tables of a run's file, in one place.
 *
 * Owns every table and column. A change that an older or newer build could not read raises
 * CT_STORE_SCHEMA_VERSION; other builds then refuse the file and say so. Anyone may read the file
 * with the sqlite3 program: `SELECT * FROM cell WHERE current`.
 */
#include "store/schema.h"

const char ct_store_schema[] =
    /* One row for every execution of `cortado run`; how: "" while it runs. */
    "CREATE TABLE execution("
    " id INTEGER PRIMARY KEY,"
    " version TEXT NOT NULL, commit_id TEXT NOT NULL,"
    " study TEXT NOT NULL, study_hash TEXT NOT NULL, study_text TEXT NOT NULL,"
    " figures TEXT NOT NULL,"
    " model TEXT NOT NULL, weights_hash TEXT NOT NULL, tokenizer_hash TEXT NOT NULL,"
    " backend TEXT NOT NULL, compute TEXT NOT NULL, dtype TEXT NOT NULL,"
    " machine TEXT NOT NULL, flags TEXT NOT NULL,"
    " numerics_version INTEGER NOT NULL, started_unix_ms INTEGER NOT NULL,"
    " how TEXT NOT NULL DEFAULT '', wall_ms REAL NOT NULL DEFAULT 0);"
    /* A prompt is shared by all interventions on it, so its text is kept once. */
    "CREATE TABLE prompt(hash TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID;"
    /* ids: "[1,2,3]", so that json_each reads them. */
    "CREATE TABLE cell("
    " key TEXT NOT NULL UNIQUE,"
    " execution INTEGER NOT NULL REFERENCES execution(id),"
    " current INTEGER NOT NULL DEFAULT 1,"
    " study TEXT NOT NULL, model TEXT NOT NULL, family TEXT NOT NULL, heads INTEGER NOT NULL,"
    " window INTEGER NOT NULL,"
    " length INTEGER NOT NULL, depth INTEGER NOT NULL,"
    " keep_heads INTEGER NOT NULL, metric TEXT NOT NULL, seed INTEGER NOT NULL,"
    " stages TEXT NOT NULL, weights_generation TEXT NOT NULL, weights_prefill TEXT NOT NULL,"
    " template TEXT NOT NULL, read_twice INTEGER NOT NULL, semantics TEXT NOT NULL,"
    " scoring TEXT NOT NULL,"
    " prompt TEXT NOT NULL REFERENCES prompt(hash), prompt_ids_hash TEXT NOT NULL,"
    " prompt_tokens INTEGER NOT NULL,"
    " needle_begin INTEGER NOT NULL, needle_end INTEGER NOT NULL,"
    " needle_token_begin INTEGER NOT NULL, needle_token_end INTEGER NOT NULL,"
    " status TEXT NOT NULL CHECK(status IN ('done','failed')), error TEXT NOT NULL,"
    " ids TEXT NOT NULL, text TEXT NOT NULL, score REAL NOT NULL, max_score REAL NOT NULL,"
    " rows_prefill INTEGER NOT NULL, rows_generation INTEGER NOT NULL,"
    " head_rows_prefill INTEGER NOT NULL, head_rows_generation INTEGER NOT NULL,"
    " heads_dropped_prefill INTEGER NOT NULL, heads_dropped_generation INTEGER NOT NULL,"
    " edit_rows_prefill INTEGER NOT NULL, edit_rows_generation INTEGER NOT NULL,"
    " edit_rows_changed_prefill INTEGER NOT NULL, edit_rows_changed_generation INTEGER NOT NULL,"
    " prefill_ms REAL NOT NULL, decode_ms REAL NOT NULL, finished_unix_ms INTEGER NOT NULL);";
