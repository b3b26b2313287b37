/* ha_config.h - every directive, its default, merge and check; read by the balancer room and the
 * contents page only. session/ and store/ get plain values.
 *
 * One structure for the server, a virtual host, <Proxy "balancer://..."> and <Location>: httpd merges
 * them, and a request sees the result in r->per_dir_config. */
#ifndef HA_CONFIG_H
#define HA_CONFIG_H

#include "httpd.h"
#include "http_config.h"
#include "mod_session_ha.h"
#include "session/session_native.h"
#include "session/session_seal.h"
#include "store/store.h"

extern module AP_MODULE_DECLARE_DATA session_ha_module;

typedef enum { HA_SYNC, HA_ASYNC, HA_NATIVE_BACKUP, HA_NO_BACKUP } ha_backup_mode;
typedef enum { HA_CONTINUE, HA_503, HA_REDIRECT } ha_on_missing;
typedef enum { HA_RETRY_OFF, HA_RETRY_SAFE, HA_RETRY_IDEMPOTENT } ha_retry;

typedef struct ha_store_line {      /* nodes, and how many copies they keep: one store */
    apr_array_header_t *urls;       /* of const char * */
    ha_store *store;                /* made when the configuration is complete (ha_config_settle) */
    int copies;
    apr_interval_time_t timeout;    /* of calls without a deadline; a request's has its section's */
} ha_store_line;

/* The nodes of one SessionHAStore; equal directives share it. Nodes and copies may be said in different
 * sections, so the store is found by the number of copies of the request's merged configuration:
 * ha_config_settle has made each one that any order of merging can ask for. */
typedef struct ha_store_place {
    apr_array_header_t *urls;       /* of const char *; NULL: the default, before it is known to be needed */
    int nodes;                      /* how many */
    ha_store_line *lines[HA_STORE_NODES_MAX + 1];   /* by copies, at most `nodes`; NULL: nobody asks for it */
} ha_store_place;

typedef struct ha_secret_line {     /* one SessionHASecret; read when the configuration is complete */
    const char *file, *old_file;    /* absolute */
    ha_secret *secret;              /* set in post_config, as root, before the children */
} ha_secret_line;

#define HA_JOURNAL_DEFAULT 256

/* Every member has a "set" state: -1 or NULL is "not said here". Read only through a
 * request's merged configuration after ha_config_settle() filled in the defaults. */
typedef struct ha_config {
    int enabled;                    /* SessionHA */
    ha_store_place *place;          /* SessionHAStore */
    int copies;                     /* SessionHACopies */
    apr_interval_time_t store_timeout;
    int backup;                     /* ha_backup_mode */
    const ha_native *native;        /* SessionHANative; each directive has its own */
    const char *id_cookie, *id_path, *id_header;    /* SessionHAId; all NULL: the balancer's stickysession */
    const char *route_cookie;       /* SessionHARouteCookie; NULL: none */
    const char *route_attributes;   /* "; Path=/; ..."; without Secure, which comes with TLS, unless it was written */
    int ttl;                        /* seconds */
    apr_int64_t max_size;           /* bytes */
    int retry;                      /* ha_retry */
    int retry_max;                  /* how often */
    apr_int64_t retry_body;         /* bytes of a body that are kept for it */
    apr_interval_time_t member_timeout;     /* SessionHAMemberTimeout; 0: off */
    int drain_moves;                /* SessionHADrain move */
    int failback_home;              /* SessionHAFailback home */
    int failback_rate;              /* sessions a second */
    int on_missing;                 /* ha_on_missing */
    const char *on_missing_url;
    ha_secret_line *secret_line;
    apr_array_header_t *ignores;    /* of ap_regex_t *: all SessionHAIgnore from the server down to here */
    int journal;                    /* one for all: the largest counts */
    server_rec *server;             /* a section's: where it was written, for ha_config_settle */
} ha_config;

/* The merged configuration of a request; never NULL. */
static inline const ha_config *ha_config_of(const request_rec *r)
{
    return ap_get_module_config(r->per_dir_config, &session_ha_module);
}

/* The defaults and values with "not said" resolved; for one merged configuration. */
static inline int ha_config_on(const ha_config *c)  /* asked for each proxied request */
{
    return c->enabled && c->backup != HA_NO_BACKUP;
}
static inline ha_backup_mode ha_config_backup(const ha_config *c)
{
    return c->backup;
}
int ha_config_ttl(const ha_config *);
apr_int64_t ha_config_max_size(const ha_config *);
ha_on_missing ha_config_on_missing(const ha_config *);
apr_interval_time_t ha_config_store_timeout(const ha_config *);
int ha_config_drain_moves(const ha_config *);
int ha_config_failback_rate(const ha_config *);     /* sessions a second; 0: stay */
ha_retry ha_config_retry(const ha_config *);
static inline apr_interval_time_t ha_config_member_timeout(const ha_config *c)  /* 0: off */
{
    return c->member_timeout;
}
int ha_config_retry_max(const ha_config *);
apr_int64_t ha_config_retry_body(const ha_config *);
const ha_native *ha_config_native(const ha_config *);   /* where the application keeps its sessions; NULL: not to be asked */
ha_store *ha_config_store(const ha_config *);       /* NULL only with SessionHA Off or SessionHABackup off */
const ha_secret *ha_config_secret(const ha_config *);
int ha_config_matches(const apr_array_header_t *of_regex, const char *uri);     /* any of them? */
static inline int ha_config_ignores(const ha_config *c, const char *uri)        /* does a SessionHAIgnore match? */
{
    return c->ignores && ha_config_matches(c->ignores, uri);
}
int ha_config_journal(void);                        /* SessionHAJournal, of the whole server */

extern const command_rec ha_config_commands[];
void *ha_config_create(apr_pool_t *p, char *dir);
void *ha_config_merge(apr_pool_t *p, void *base, void *add);

/* check_config (ha_settle.c), also of "httpd -t": what only all directives together can show to be wrong. 0: logged, with
 * what is allowed. */
int ha_config_check(apr_pool_t *pconf, apr_pool_t *ptemp, server_rec *s);

/* post_config (ha_settle.c): makes the stores and reads the secrets that a section with SessionHA On can come to use
 * (the defaults too). Logs what is wrong and says what is allowed; APR_EGENERAL stops the start. */
apr_status_t ha_config_settle(apr_pool_t *pconf, apr_pool_t *ptemp, server_rec *s);
void ha_config_when_on(void (*call)(void));         /* at the first SessionHA On of the next pass over the configuration */
int ha_config_in_use(void);                         /* is SessionHA On anywhere? */
apr_array_header_t *ha_config_stores(void);         /* of ha_store_line *: what ha_config_settle made */

/* ---- between ha_config.c (what is written) and ha_settle.c (what is made of it) ---- */

/* All that the directives of one configuration pass name; hangs on pconf, so it is gone with it. */
typedef struct ha_written {
    apr_array_header_t *places;     /* of ha_store_place *; the first is the default */
    apr_array_header_t *secrets;    /* of ha_secret_line *; the first is the default */
    apr_array_header_t *sections;   /* of ha_config *: each that a directive stands in */
} ha_written;

ha_written *ha_config_written(apr_pool_t *pconf);
int ha_config_same_urls(const apr_array_header_t *, const apr_array_header_t *);
void ha_config_fill_in(ha_config *, const ha_written *);    /* the defaults, into a server's own */

#endif
