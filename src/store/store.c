/* store.c - a run's SQLite file: open, lock, write, read. See store.h; tables: schema.c.
 *
 * Durability: WAL with synchronous=FULL. A transaction's pages and its commit record are fsynced to
 * the log before COMMIT returns, so neither kill -9 nor a power cut loses what ct_store_put
 * acknowledged, and what was not acknowledged is rolled back whole on the next open. NORMAL would
 * keep the file consistent, too, but a power cut may take the last transactions with it; since a
 * batch is written a few times a second, the fsync costs nothing that matters.
 * On a network file system the log's shared memory does not work between machines: there the
 * classic rollback journal is used, with the same guarantee and readers that wait.
 */
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/hash.h"
#include "store/schema.h"

enum { BUSY_TIMEOUT_MS = 5000, PROVENANCE_TEXTS = 14 };

struct ct_store {
    sqlite3 *db;
    char *path;
    bool writable;
    int lock_fd;        /* -1: not held */
    int64_t execution;  /* rowid of the execution under way; 0: none */
    sqlite3_stmt *find; /* made when first needed */
    sqlite3_stmt *read_provenance;
};

/* ---- errors ---------------------------------------------------------------------------------- */

static ct_status status_of(int code)
{
    switch (code & 0xFF) {
    case SQLITE_NOMEM:
        return CT_ERR_MEMORY;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_FORMAT:
    case SQLITE_MISMATCH:
        return CT_ERR_FORMAT;
    case SQLITE_TOOBIG:
        return CT_ERR_LIMIT;
    default:
        return CT_ERR_IO;
    }
}

static ct_status fail_sql(const ct_store *store, int code, const char *doing, ct_err *err)
{
    const char *hint = "";
    switch (code & 0xFF) {
    case SQLITE_NOTADB:
        hint = "; this is not a store of cortado";
        break;
    case SQLITE_CORRUPT:
        hint = "; the file is damaged: move it away and run again";
        break;
    case SQLITE_FULL:
        hint = "; the disk is full: finished cells are kept, run again when there is room";
        break;
    case SQLITE_IOERR:
        hint = "; is the disk full or failing, or a limit of file sizes reached?";
        break;
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
        hint = "; may this user write the file and its folder?";
        break;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        hint = "; another process has kept it locked for 5 s";
        break;
    default:
        break;
    }
    return ct_fail(err, status_of(code), "%s: %s: %s%s", store->path, doing,
                   store->db ? sqlite3_errmsg(store->db) : sqlite3_errstr(code), hint);
}

static ct_status exec(const ct_store *store, const char *sql, const char *doing, ct_err *err)
{
    int code = sqlite3_exec(store->db, sql, NULL, NULL, NULL);
    return code == SQLITE_OK ? CT_OK : fail_sql(store, code, doing, err);
}

static ct_status prepare(const ct_store *store, const char *sql, sqlite3_stmt **out, ct_err *err)
{
    int code = sqlite3_prepare_v2(store->db, sql, -1, out, NULL);
    return code == SQLITE_OK ? CT_OK : fail_sql(store, code, "reading the tables", err);
}

/* Runs a statement that gives no rows and makes it ready for the next use. */
static ct_status step_done(const ct_store *store, sqlite3_stmt *stmt, const char *doing,
                           ct_err *err)
{
    int code = sqlite3_step(stmt);
    ct_status st = code == SQLITE_DONE ? CT_OK : fail_sql(store, code, doing, err);
    sqlite3_reset(stmt);
    return st;
}

/* The one integer that a query gives. */
static ct_status query_int(const ct_store *store, const char *sql, int64_t *out, ct_err *err)
{
    sqlite3_stmt *stmt = NULL;
    ct_status st = prepare(store, sql, &stmt, err);
    if (st == CT_OK) {
        int code = sqlite3_step(stmt);
        if (code == SQLITE_ROW) *out = sqlite3_column_int64(stmt, 0);
        else st = fail_sql(store, code, "reading the header", err);
    }
    sqlite3_finalize(stmt);
    return st;
}

static void rollback(const ct_store *store)
{
    /* Some errors have rolled back already; then this one says so, and nothing is lost. */
    if (!sqlite3_get_autocommit(store->db))
        (void)sqlite3_exec(store->db, "ROLLBACK", NULL, NULL, NULL);
}

/* ---- open and close -------------------------------------------------------------------------- */

/* True on file systems that several machines share. */
static bool on_network(const char *path)
{
    static const unsigned long network[] = {
        0x6969,     /* NFS */
        0x0BD00BD0, /* Lustre */
        0x47504653, /* GPFS */
        0xFF534D42, /* CIFS */
        0xFE534D42, /* SMB2 */
        0x00C36400, /* Ceph */
        0x19830326, /* BeeGFS */
    };
    struct statfs info;
    if (statfs(path, &info) != 0) return false;
    for (size_t i = 0; i < sizeof network / sizeof *network; i++)
        if (((unsigned long)info.f_type & 0xFFFFFFFFu) == network[i]) return true;
    return false;
}

/* Makes the tables in a new file; checks the marks of an old one. */
static ct_status check_schema(const ct_store *store, ct_err *err)
{
    int64_t application = 0, version = 0, tables = 0;
    ct_status st = query_int(store, "PRAGMA application_id", &application, err);
    if (st == CT_OK) st = query_int(store, "PRAGMA user_version", &version, err);
    if (st == CT_OK) st = query_int(store, "SELECT count(*) FROM sqlite_master", &tables, err);
    if (st != CT_OK) return st;
    if (application == 0 && version == 0 && tables == 0) {
        if (!store->writable)
            return ct_fail(err, CT_ERR_FORMAT,
                           "%s: expected a store of cortado, got an empty database", store->path);
        char marks[96];
        snprintf(marks, sizeof marks, "PRAGMA application_id=%d; PRAGMA user_version=%d;",
                 CT_STORE_APPLICATION_ID, CT_STORE_SCHEMA_VERSION);
        /* IMMEDIATE, and looked at again inside: of two that make the file at once, one makes it.
         */
        st = exec(store, "BEGIN IMMEDIATE", "making the tables", err);
        if (st == CT_OK) st = query_int(store, "SELECT count(*) FROM sqlite_master", &tables, err);
        if (st == CT_OK && tables == 0) st = exec(store, ct_store_schema, "making the tables", err);
        if (st == CT_OK) st = exec(store, marks, "making the tables", err);
        if (st == CT_OK) st = exec(store, "COMMIT", "making the tables", err);
        if (st != CT_OK) rollback(store);
        return st;
    }
    if (application != CT_STORE_APPLICATION_ID)
        return ct_fail(err, CT_ERR_FORMAT,
                       "%s: expected a store of cortado, got an SQLite file of another program",
                       store->path);
    if (version != CT_STORE_SCHEMA_VERSION)
        return ct_fail(err, CT_ERR_UNSUPPORTED,
                       "%s: expected a store of schema version %d, got version %lld; use the "
                       "cortado that made it, or run into another folder",
                       store->path, CT_STORE_SCHEMA_VERSION, (long long)version);
    return CT_OK;
}

/* True if nothing is in the log and no run is at work, as after every run that ended well. */
static bool at_rest(const char *path)
{
    struct stat info;
    char *log = ct_strf(NULL, "%s-wal", path), *lock = ct_strf(NULL, "%s-run", path);
    bool rests = log && lock && (stat(log, &info) != 0 || info.st_size == 0);
    int fd = rests ? open(lock, O_RDONLY | O_CLOEXEC) : -1;
    if (fd >= 0) {
        rests = flock(fd, LOCK_SH | LOCK_NB) == 0;
        close(fd);
    }
    free(log);
    free(lock);
    return rests;
}

/* To read a file in WAL mode SQLite makes two files beside it. Where it may not (a folder of somebody
 * else, a read-only file system), it must be told that the file will not change. The URI for that;
 * NULL without an error if this is no such case. */
static ct_status uri_of_fixed(const char *path, char **uri, ct_err *err)
{
    ct_status st = CT_OK;
    ct_buf buf = {0};
    const char *slash = strrchr(path, '/');
    *uri = NULL;
    char *dir = slash ? ct_strndup(path, (size_t)(slash - path) + 1, err) : ct_strdup(".", err);
    if (!dir) return CT_ERR_MEMORY;
    bool writable = access(dir, W_OK) == 0;
    free(dir);
    if (writable || !at_rest(path)) return CT_OK;
    CT_TRY(ct_buf_adds(&buf, path[0] == '/' ? "file://" : "file:", err));
    for (const char *p = path; *p; p++)
        CT_TRY(strchr("%?#", *p) ? ct_buf_addf(&buf, err, "%%%02X", (unsigned char)*p)
                                 : ct_buf_add(&buf, p, 1, err));
    CT_TRY(ct_buf_adds(&buf, "?immutable=1", err));
    *uri = ct_buf_take(&buf);
done:
    ct_buf_clear(&buf);
    return st;
}

ct_status ct_store_open(const char *path, bool create, ct_store **out, ct_err *err)
{
    ct_status st;
    char *uri = NULL;
    *out = NULL;
    ct_store *store = calloc(1, sizeof *store);
    if (!store) return ct_fail_memory(err, path, sizeof *store);
    store->lock_fd = -1;
    store->writable = create;
    store->path = ct_strdup(path, err);
    if (!store->path) {
        st = CT_ERR_MEMORY;
        goto done;
    }
    if (!create && access(path, F_OK) != 0) {
        st = ct_fail(err, CT_ERR_NOT_FOUND,
                     "%s: expected a store that cortado run has written, got no such file", path);
        goto done;
    }
    if (!create) CT_TRY(uri_of_fixed(path, &uri, err));
    int flags = create ? SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE : SQLITE_OPEN_READONLY;
    if (uri) flags |= SQLITE_OPEN_URI;
    int code = sqlite3_open_v2(uri ? uri : path, &store->db, flags | SQLITE_OPEN_NOMUTEX, NULL);
    if (code != SQLITE_OK) {
        st = fail_sql(store, code, "opening", err);
        goto done;
    }
    sqlite3_extended_result_codes(store->db, 1);
    sqlite3_busy_timeout(store->db, BUSY_TIMEOUT_MS);
    /* A file from elsewhere must not run code: no triggers or views of its own. */
    sqlite3_db_config(store->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    sqlite3_db_config(store->db, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, NULL);
    sqlite3_db_config(store->db, SQLITE_DBCONFIG_ENABLE_VIEW, 0, NULL);
    CT_TRY(check_schema(store, err));
    if (create) {
        CT_TRY(exec(store,
                    on_network(path) ? "PRAGMA journal_mode=DELETE" : "PRAGMA journal_mode=WAL",
                    "choosing the journal", err));
        CT_TRY(exec(store, "PRAGMA synchronous=FULL", "choosing the journal", err));
    }
done:
    free(uri);
    if (st == CT_OK) *out = store;
    else ct_store_close(store);
    return st;
}

static void unlock(ct_store *store)
{
    if (store->lock_fd >= 0) close(store->lock_fd);
    store->lock_fd = -1;
    store->execution = 0;
}

void ct_store_close(ct_store *store)
{
    if (!store) return;
    sqlite3_finalize(store->find);
    sqlite3_finalize(store->read_provenance);
    sqlite3_close(store->db);
    unlock(store);
    free(store->path);
    free(store);
}

/* ---- executions ------------------------------------------------------------------------------ */

/* A lock of our own beside the file: SQLite's are held for a transaction only, and a run lasts for
 * hours. flock goes with the process, however it ends; the file with the process id stays. */
static ct_status take_lock(ct_store *store, ct_err *err)
{
    char *path = ct_strf(err, "%s-run", store->path);
    if (!path) return CT_ERR_MEMORY;
    ct_status st = CT_OK;
    char text[32] = {0};
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0) {
        st = ct_fail_errno(err, "%s: opening the run's lock", path);
    } else if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno == EWOULDBLOCK) {
            ssize_t n = pread(fd, text, sizeof text - 1, 0);
            text[n > 0 ? strspn(text, "0123456789") : 0] = 0;
            st = ct_fail(err, CT_ERR_USAGE,
                         "%s: expected to be the only run, got another at work in it (process %s); "
                         "wait for its end or choose another folder with --out",
                         store->path, *text ? text : "unknown");
        } else {
            st = ct_fail_errno(err, "%s: locking", path);
        }
    } else {
        /* The number is for the message alone: if it cannot be written, the lock still holds. */
        int n = snprintf(text, sizeof text, "%ld\n", (long)getpid());
        if (ftruncate(fd, 0) != 0 || pwrite(fd, text, (size_t)n, 0) != n) errno = 0;
    }
    if (st == CT_OK) store->lock_fd = fd;
    else if (fd >= 0) close(fd);
    free(path);
    return st;
}

static ct_status need_writable(const ct_store *store, ct_err *err)
{
    if (store->writable) return CT_OK;
    return ct_fail(err, CT_ERR_USAGE, "%s: expected a store opened to write, got one to read",
                   store->path);
}

static void bind_text(sqlite3_stmt *stmt, int i, const char *text)
{
    /* STATIC: nothing is copied, so that binding cannot fail for want of memory. */
    sqlite3_bind_text(stmt, i, text ? text : "", -1, SQLITE_STATIC);
}

ct_status ct_store_begin(ct_store *store, const ct_provenance *p, ct_err *err)
{
    ct_status st;
    sqlite3_stmt *stmt = NULL;
    CT_TRY(need_writable(store, err));
    if (store->execution) {
        st = ct_fail(err, CT_ERR_USAGE, "%s: an execution has begun already", store->path);
        goto done;
    }
    CT_TRY(take_lock(store, err));
    CT_TRY(exec(store, "BEGIN IMMEDIATE", "beginning", err));
    /* Whoever has the lock knows that no other execution is alive. */
    CT_TRY(exec(store, "UPDATE execution SET how='killed' WHERE how=''", "beginning", err));
    CT_TRY(prepare(store,
                   "INSERT INTO execution(version,commit_id,study,study_hash,study_text,figures,"
                   "model,weights_hash,tokenizer_hash,backend,compute,dtype,machine,flags,"
                   "numerics_version,started_unix_ms) VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
                   &stmt, err));
    const char *const texts[PROVENANCE_TEXTS] = {
        p->version, p->commit, p->study,        p->study_hash,     p->study_text,
        p->figures, p->model,  p->weights_hash, p->tokenizer_hash, p->backend,
        p->compute, p->dtype,  p->machine,      p->flags,
    };
    for (int i = 0; i < PROVENANCE_TEXTS; i++) bind_text(stmt, i + 1, texts[i]);
    sqlite3_bind_int(stmt, PROVENANCE_TEXTS + 1, p->numerics_version);
    sqlite3_bind_int64(stmt, PROVENANCE_TEXTS + 2, p->started_unix_ms);
    CT_TRY(step_done(store, stmt, "beginning", err));
    int64_t id = sqlite3_last_insert_rowid(store->db);
    CT_TRY(exec(store, "COMMIT", "beginning", err));
    store->execution = id;
done:
    sqlite3_finalize(stmt);
    if (st != CT_OK && store->lock_fd >= 0 && !store->execution) {
        rollback(store);
        unlock(store);
    }
    return st;
}

ct_status ct_store_end(ct_store *store, const char *how, double wall_ms, ct_err *err)
{
    if (!store->execution)
        return ct_fail(err, CT_ERR_USAGE, "%s: no execution has begun", store->path);
    sqlite3_stmt *stmt = NULL;
    ct_status st = prepare(store, "UPDATE execution SET how=?, wall_ms=? WHERE id=?", &stmt, err);
    if (st == CT_OK) {
        bind_text(stmt, 1, how);
        sqlite3_bind_double(stmt, 2, wall_ms);
        sqlite3_bind_int64(stmt, 3, store->execution);
        st = step_done(store, stmt, "ending", err);
    }
    sqlite3_finalize(stmt);
    unlock(store);
    return st;
}

/* The provenance's texts in their columns' order. */
ct_status ct_store_provenance(ct_store *store, size_t i, ct_provenance *out, ct_err *err)
{
    if (!store->read_provenance) {
        ct_status st = prepare(store,
                               "SELECT version,commit_id,study,study_hash,study_text,figures,model,"
                               "weights_hash,tokenizer_hash,backend,compute,dtype,machine,flags,"
                               "numerics_version,started_unix_ms FROM execution WHERE id IN "
                               "(SELECT max(id) FROM execution WHERE study_hash="
                               "(SELECT study_hash FROM execution ORDER BY id DESC LIMIT 1) "
                               "GROUP BY model) ORDER BY id LIMIT 1 OFFSET ?",
                               &store->read_provenance, err);
        if (st != CT_OK) return st;
    }
    sqlite3_stmt *stmt = store->read_provenance;
    sqlite3_reset(stmt);
    sqlite3_bind_int64(stmt, 1, (int64_t)i);
    int code = sqlite3_step(stmt);
    if (code == SQLITE_DONE)
        return ct_fail(err, CT_ERR_NOT_FOUND, "%s: expected an execution, got none yet",
                       store->path);
    if (code != SQLITE_ROW) return fail_sql(store, code, "reading the provenance", err);
    const char *texts[PROVENANCE_TEXTS];
    for (int t = 0; t < PROVENANCE_TEXTS; t++) {
        texts[t] = (const char *)sqlite3_column_text(stmt, t);
        if (!texts[t]) return fail_sql(store, SQLITE_NOMEM, "reading the provenance", err);
    }
    *out = (ct_provenance){
        .version = texts[0],
        .commit = texts[1],
        .study = texts[2],
        .study_hash = texts[3],
        .study_text = texts[4],
        .figures = texts[5],
        .model = texts[6],
        .weights_hash = texts[7],
        .tokenizer_hash = texts[8],
        .backend = texts[9],
        .compute = texts[10],
        .dtype = texts[11],
        .machine = texts[12],
        .flags = texts[13],
        .numerics_version = sqlite3_column_int(stmt, PROVENANCE_TEXTS),
        .started_unix_ms = sqlite3_column_int64(stmt, PROVENANCE_TEXTS + 1),
    };
    return CT_OK;
}

/* ---- cells ----------------------------------------------------------------------------------- */

/* The columns that bind_cell and read_cell go through, in this order; prompt is apart, since its
 * text lies in another table. */
#define COLUMNS                                                                                    \
    "key,study,model,family,heads,window,length,depth,keep_heads,metric,seed,stages,"              \
    "weights_generation,weights_prefill,template,read_twice,semantics,scoring,prompt_ids_hash,"    \
    "prompt_tokens,needle_begin,needle_end,needle_token_begin,needle_token_end,status,error,ids,"  \
    "text,score,max_score,rows_prefill,rows_generation,head_rows_prefill,"                         \
    "head_rows_generation,heads_dropped_prefill,heads_dropped_generation,edit_rows_prefill,"       \
    "edit_rows_generation,edit_rows_changed_prefill,edit_rows_changed_generation,prefill_ms,"      \
    "decode_ms,finished_unix_ms"
enum { N_COLUMNS = 43, N_AUDIT = 5 };

static ct_status ids_text(const ct_cell *cell, ct_buf *buf, ct_err *err)
{
    ct_status st;
    buf->size = 0;
    CT_TRY(ct_buf_adds(buf, "[", err));
    for (size_t i = 0; i < cell->n_ids; i++)
        CT_TRY(ct_buf_addf(buf, err, i ? ",%d" : "%d", (int)cell->ids[i]));
    CT_TRY(ct_buf_adds(buf, "]", err));
done:
    return st;
}

static void bind_cell(sqlite3_stmt *stmt, const ct_cell *c, const char *ids)
{
    int i = 1;
    bind_text(stmt, i++, c->key);
    bind_text(stmt, i++, c->study);
    bind_text(stmt, i++, c->model);
    bind_text(stmt, i++, c->family);
    sqlite3_bind_int64(stmt, i++, c->heads);
    sqlite3_bind_int64(stmt, i++, c->window);
    sqlite3_bind_int64(stmt, i++, c->length);
    sqlite3_bind_int64(stmt, i++, c->depth);
    sqlite3_bind_int64(stmt, i++, c->keep_heads);
    bind_text(stmt, i++, c->metric);
    sqlite3_bind_int64(stmt, i++, c->seed);
    bind_text(stmt, i++, c->stages);
    bind_text(stmt, i++, c->weights_generation);
    bind_text(stmt, i++, c->weights_prefill);
    bind_text(stmt, i++, c->template_name);
    sqlite3_bind_int(stmt, i++, c->read_twice);
    bind_text(stmt, i++, c->semantics);
    bind_text(stmt, i++, c->scoring);
    bind_text(stmt, i++, c->prompt_ids_hash);
    sqlite3_bind_int64(stmt, i++, c->prompt_tokens);
    sqlite3_bind_int64(stmt, i++, c->needle_begin);
    sqlite3_bind_int64(stmt, i++, c->needle_end);
    sqlite3_bind_int64(stmt, i++, c->needle_token_begin);
    sqlite3_bind_int64(stmt, i++, c->needle_token_end);
    bind_text(stmt, i++, c->status == CT_CELL_DONE ? "done" : "failed");
    bind_text(stmt, i++, c->error);
    bind_text(stmt, i++, ids);
    bind_text(stmt, i++, c->text);
    sqlite3_bind_double(stmt, i++, c->score);
    sqlite3_bind_double(stmt, i++, c->max_score);
    const int64_t *const audit[N_AUDIT] = {c->audit.rows, c->audit.head_rows,
                                           c->audit.heads_dropped, c->audit.edit_rows,
                                           c->audit.edit_rows_changed};
    for (int a = 0; a < N_AUDIT; a++)
        for (int stage = 0; stage < CT_STAGE_COUNT; stage++)
            sqlite3_bind_int64(stmt, i++, audit[a][stage]);
    sqlite3_bind_double(stmt, i++, c->prefill_ms);
    sqlite3_bind_double(stmt, i++, c->decode_ms);
    sqlite3_bind_int64(stmt, i++, c->finished_unix_ms);
    CT_ASSERT(i == N_COLUMNS + 1);
}

ct_status ct_store_put(ct_store *store, const ct_cell *cells, size_t n, ct_err *err)
{
    if (!store->execution)
        return ct_fail(err, CT_ERR_USAGE, "%s: a cell was put before an execution has begun",
                       store->path);
    if (n == 0) return CT_OK;
    ct_status st;
    sqlite3_stmt *drop = NULL, *prompt = NULL, *insert = NULL;
    ct_buf ids = {0};
    CT_TRY(exec(store, "BEGIN IMMEDIATE", "writing", err));
    CT_TRY(prepare(store, "DELETE FROM cell WHERE key=? AND status='failed'", &drop, err));
    CT_TRY(prepare(store, "INSERT INTO prompt(hash,text) VALUES(?,?) ON CONFLICT DO NOTHING",
                   &prompt, err));
    CT_TRY(prepare(store,
                   "INSERT INTO cell(" COLUMNS ",prompt,execution) VALUES("
                   "?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,"
                   "?,?,?,?,?,?) ON CONFLICT(key) DO NOTHING",
                   &insert, err));
    for (size_t i = 0; i < n; i++) {
        const char *text = cells[i].prompt ? cells[i].prompt : "";
        char hash[CT_HASH_HEX];
        ct_hash_hex(ct_hash_bytes(text, strlen(text)), hash);
        bind_text(drop, 1, cells[i].key);
        CT_TRY(step_done(store, drop, "writing", err));
        bind_text(prompt, 1, hash);
        bind_text(prompt, 2, text);
        CT_TRY(step_done(store, prompt, "writing", err));
        CT_TRY(ids_text(&cells[i], &ids, err));
        bind_cell(insert, &cells[i], ids.data);
        bind_text(insert, N_COLUMNS + 1, hash);
        sqlite3_bind_int64(insert, N_COLUMNS + 2, store->execution);
        CT_TRY(step_done(store, insert, "writing", err));
    }
    CT_TRY(exec(store, "COMMIT", "writing", err));
done:
    sqlite3_finalize(drop);
    sqlite3_finalize(prompt);
    sqlite3_finalize(insert);
    if (st != CT_OK) rollback(store);
    ct_buf_clear(&ids);
    return st;
}

ct_status ct_store_find(ct_store *store, const char *key, bool *found, ct_cell_status *status,
                        bool *current, ct_err *err)
{
    *found = *current = false;
    if (!store->find) {
        ct_status st =
            prepare(store, "SELECT status='done',current FROM cell WHERE key=?", &store->find, err);
        if (st != CT_OK) return st;
    }
    bind_text(store->find, 1, key);
    int code = sqlite3_step(store->find);
    if (code == SQLITE_ROW) {
        *found = true;
        *status = sqlite3_column_int(store->find, 0) ? CT_CELL_DONE : CT_CELL_FAILED;
        *current = sqlite3_column_int(store->find, 1) != 0;
    }
    ct_status st = code == SQLITE_ROW || code == SQLITE_DONE
                       ? CT_OK
                       : fail_sql(store, code, "looking for a cell", err);
    sqlite3_reset(store->find);
    sqlite3_clear_bindings(store->find);
    return st;
}

/* Runs a statement whose one parameter is the model. */
static ct_status exec_model(const ct_store *store, const char *sql, const char *model, ct_err *err)
{
    sqlite3_stmt *stmt = NULL;
    ct_status st = prepare(store, sql, &stmt, err);
    if (st == CT_OK) {
        bind_text(stmt, 1, model);
        st = step_done(store, stmt, "marking the study's cells", err);
    }
    sqlite3_finalize(stmt);
    return st;
}

ct_status ct_store_set_current(ct_store *store, const char *model, const char *const *keys,
                               size_t n, ct_err *err)
{
    ct_status st;
    sqlite3_stmt *insert = NULL;
    CT_TRY(need_writable(store, err));
    CT_TRY(exec(store, "BEGIN IMMEDIATE", "marking the study's cells", err));
    CT_TRY(exec(store,
                "CREATE TEMP TABLE IF NOT EXISTS wanted(key TEXT PRIMARY KEY) WITHOUT ROWID;"
                "DELETE FROM wanted",
                "marking the study's cells", err));
    CT_TRY(
        prepare(store, "INSERT INTO wanted(key) VALUES(?) ON CONFLICT DO NOTHING", &insert, err));
    for (size_t i = 0; i < n; i++) {
        bind_text(insert, 1, keys[i]);
        CT_TRY(step_done(store, insert, "marking the study's cells", err));
    }
    /* Only rows that change are written. */
    if (model) {
        CT_TRY(exec_model(store,
                          "UPDATE cell SET model = ?1 WHERE model <> ?1"
                          " AND key IN (SELECT key FROM wanted)",
                          model, err));
        CT_TRY(exec_model(store,
                          "UPDATE cell SET current = NOT current WHERE model = ?1"
                          " AND current <> (key IN (SELECT key FROM wanted))",
                          model, err));
    } else {
        CT_TRY(exec(store,
                    "UPDATE cell SET current = NOT current"
                    " WHERE current <> (key IN (SELECT key FROM wanted))",
                    "marking the study's cells", err));
    }
    CT_TRY(exec(store, "DELETE FROM wanted", "marking the study's cells", err));
    CT_TRY(exec(store, "COMMIT", "marking the study's cells", err));
done:
    sqlite3_finalize(insert);
    if (st != CT_OK) rollback(store);
    return st;
}

/* "[1,2,3]" to ids in *out (grown as needed). */
static ct_status read_ids(const ct_store *store, const char *text, int32_t **out, size_t *capacity,
                          size_t *count, ct_err *err)
{
    *count = 0;
    const char *p = text;
    bool ok = *p++ == '[';
    while (ok && *p && *p != ']') {
        char *end;
        long value = strtol(p, &end, 10);
        ok = end != p && value >= INT32_MIN && value <= INT32_MAX && (*end == ',' || *end == ']');
        if (!ok) break;
        if (*count == *capacity) {
            size_t grown = *capacity ? *capacity * 2 : 64;
            int32_t *ids = realloc(*out, grown * sizeof **out);
            if (!ids) return ct_fail_memory(err, store->path, grown * sizeof **out);
            *out = ids;
            *capacity = grown;
        }
        (*out)[(*count)++] = (int32_t)value;
        p = *end == ',' ? end + 1 : end;
    }
    if (ok && strcmp(p, "]") == 0) return CT_OK;
    return ct_fail(err, CT_ERR_FORMAT, "%s: a cell's ids: expected [1,2,...], got %.40s",
                   store->path, text);
}

/* A text column; NULL only if memory ran out (all are NOT NULL). */
static const char *text_at(sqlite3_stmt *stmt, int i, bool *ok)
{
    const char *text = (const char *)sqlite3_column_text(stmt, i);
    if (!text) *ok = false;
    return text;
}

/* All but ids; its text goes to *ids. */
static bool read_cell(sqlite3_stmt *stmt, ct_cell *c, const char **ids)
{
    bool ok = true;
    int i = 0;
    const char *key = text_at(stmt, i++, &ok);
    if (key) snprintf(c->key, sizeof c->key, "%s", key);
    c->study = text_at(stmt, i++, &ok);
    c->model = text_at(stmt, i++, &ok);
    c->family = text_at(stmt, i++, &ok);
    c->heads = sqlite3_column_int64(stmt, i++);
    c->window = sqlite3_column_int64(stmt, i++);
    c->length = sqlite3_column_int64(stmt, i++);
    c->depth = sqlite3_column_int64(stmt, i++);
    c->keep_heads = sqlite3_column_int64(stmt, i++);
    c->metric = text_at(stmt, i++, &ok);
    c->seed = sqlite3_column_int64(stmt, i++);
    c->stages = text_at(stmt, i++, &ok);
    c->weights_generation = text_at(stmt, i++, &ok);
    c->weights_prefill = text_at(stmt, i++, &ok);
    c->template_name = text_at(stmt, i++, &ok);
    c->read_twice = sqlite3_column_int(stmt, i++) != 0;
    c->semantics = text_at(stmt, i++, &ok);
    c->scoring = text_at(stmt, i++, &ok);
    c->prompt_ids_hash = text_at(stmt, i++, &ok);
    c->prompt_tokens = sqlite3_column_int64(stmt, i++);
    c->needle_begin = sqlite3_column_int64(stmt, i++);
    c->needle_end = sqlite3_column_int64(stmt, i++);
    c->needle_token_begin = sqlite3_column_int64(stmt, i++);
    c->needle_token_end = sqlite3_column_int64(stmt, i++);
    const char *status = text_at(stmt, i++, &ok);
    c->status = status && strcmp(status, "done") == 0 ? CT_CELL_DONE : CT_CELL_FAILED;
    c->error = text_at(stmt, i++, &ok);
    *ids = text_at(stmt, i++, &ok);
    c->text = text_at(stmt, i++, &ok);
    c->score = sqlite3_column_double(stmt, i++);
    c->max_score = sqlite3_column_double(stmt, i++);
    int64_t *const audit[N_AUDIT] = {c->audit.rows, c->audit.head_rows, c->audit.heads_dropped,
                                     c->audit.edit_rows, c->audit.edit_rows_changed};
    for (int a = 0; a < N_AUDIT; a++)
        for (int stage = 0; stage < CT_STAGE_COUNT; stage++)
            audit[a][stage] = sqlite3_column_int64(stmt, i++);
    c->prefill_ms = sqlite3_column_double(stmt, i++);
    c->decode_ms = sqlite3_column_double(stmt, i++);
    c->finished_unix_ms = sqlite3_column_int64(stmt, i++);
    CT_ASSERT(i == N_COLUMNS);
    c->prompt = text_at(stmt, i, &ok);
    return ok;
}

ct_status ct_store_each(ct_store *store, ct_cell_fn fn, void *user, ct_err *err)
{
    ct_status st;
    sqlite3_stmt *stmt = NULL;
    int32_t *ids = NULL;
    size_t capacity = 0;
    CT_TRY(prepare(
        store,
        "SELECT " COLUMNS
        ",ifnull((SELECT p.text FROM prompt p WHERE p.hash=cell.prompt),'') FROM cell"
        " WHERE current ORDER BY model,read_twice,stages,metric,weights_generation,weights_prefill,"
        "keep_heads,seed,length,depth,key",
        &stmt, err));
    int code;
    while ((code = sqlite3_step(stmt)) == SQLITE_ROW) {
        ct_cell cell = {0};
        const char *text = NULL;
        if (!read_cell(stmt, &cell, &text)) {
            st = sqlite3_errcode(store->db) == SQLITE_NOMEM
                     ? fail_sql(store, SQLITE_NOMEM, "reading a cell", err)
                     : ct_fail(err, CT_ERR_FORMAT,
                               "%s: expected text in every column of a cell, got none; the file is "
                               "damaged: move it away and run again",
                               store->path);
            goto done;
        }
        CT_TRY(read_ids(store, text, &ids, &capacity, &cell.n_ids, err));
        cell.ids = ids;
        CT_TRY(fn(user, &cell, err));
    }
    if (code != SQLITE_DONE) st = fail_sql(store, code, "reading the cells", err);
done:
    sqlite3_finalize(stmt);
    free(ids);
    return st;
}
