/* The C ABI between Greenroom's host and a handler library, version 1.6.
 *
 * A library exports one function, named in its ELF note, that returns a pointer to a gr_library. What each
 * field means is written where the same types stand in Rust: state-schema/src/abi.rs. The rules:
 *
 * - Every struct starts with its size. Within a major version fields are only appended.
 * - Strings and bytes are pointer and length, and valid for the call that carries them.
 * - What one side allocates, that side frees. Nothing unwinds across.
 * - A handler keeps nothing between turns: an instance never changes after create.
 */
#ifndef GREENROOM_H
#define GREENROOM_H

#include <stddef.h>
#include <stdint.h>

#define GR_ABI_MAJOR 1
#define GR_ABI_MINOR 7

enum { GR_OK = 0, GR_ABSENT = 1, GR_LIMIT = 2, GR_INVALID = 3 };                       /* what the host answers */
enum { GR_OPENED = 1, GR_MESSAGE = 2, GR_CLOSED = 3 };                                 /* gr_action.kind */
enum { GR_TIMER = 4, GR_NOTE = 5, GR_PUBLISHED = 6, GR_JOB = 7, GR_DIALED = 8, GR_CONNECT = 9 }; /* the same, since 1.2 */
enum { GR_PAGE = 10, GR_NEGOTIATED = 11, GR_SUBNEGOTIATION = 12, GR_DATAGRAM = 13 };   /* the same, since 1.4 */
enum { GR_TLS_STARTED = 14, GR_STARTED = 15 };                                         /* the same, since 1.5 */
enum { GR_WOKEN = 16, GR_IDLE = 17, GR_MISSED = 18 };                                  /* the same, since 1.6 */
enum { GR_STARTED_HOST = 0, GR_STARTED_GENERATION = 1 };                               /* why GR_STARTED */
enum { GR_CONNECT_OPEN = 0, GR_CONNECT_FAILED = 1 };                                   /* how GR_CONNECT ended */
enum { GR_JOB_DONE = 0, GR_JOB_FAILED = 1, GR_JOB_LOST = 2 };                          /* how GR_JOB ended */
enum { GR_BY_PEER = 1, GR_BROKEN = 2, GR_BY_HANDLER = 3, GR_BY_LIMIT = 4, GR_STOPPING = 5, GR_BY_OPERATOR = 6 }; /* why GR_CLOSED */
enum { GR_LINES = 1, GR_RAW = 2 };                                                     /* gr_service.framing */
enum { GR_LENGTH_PREFIX = 3, GR_DELIMITER = 4, GR_TELNET = 5 };                        /* the same, since 1.3 */
enum { GR_WEBSOCKET = 6, GR_CUSTOM = 7, GR_DATAGRAMS = 8, GR_PEER = 9 };               /* the same, since 1.4 */
enum { GR_CUSTOM_STATE_MAX = 32 };                                                     /* bytes of gr_frame_cut.state */
enum { GR_CUT_MORE = 0, GR_CUT_MESSAGE = 1, GR_CUT_SKIPPED = 2, GR_CUT_INVALID = 3, GR_CUT_FAILED = 4 }; /* returned by cut */
enum { GR_WILL = 251, GR_WONT = 252, GR_DO = 253, GR_DONT = 254 };                     /* verbs of negotiate */
enum { GR_FAULT_ERROR = 1, GR_FAULT_PANIC = 2, GR_FAULT_STATE = 3 };                   /* gr_fault.kind */
enum { GR_LOG_ERROR = 1, GR_LOG_WARN = 2, GR_LOG_INFO = 3, GR_LOG_DEBUG = 4, GR_LOG_TRACE = 5 };
enum { GR_BROADCAST_OTHERS = 1 };                                                      /* flag of broadcast */
enum { GR_BROADCAST_LINE = 2 };                                                        /* the same, since 1.4 */
enum { GR_BROADCAST_DROP_IF_SLOW = 4 };                                                /* the same, since 1.6 */
enum { GR_EXPIRED = 24 };                                                              /* gr_action.kind, since 1.6 */
enum { GR_TABLE_HEARS_OF_EXPIRY = 1 };                                                 /* gr_table.flags */
enum { GR_TABLE_BACKWARDS = 1, GR_TABLE_KEY_ALONE = 2 };                               /* flags of table_seek */
enum { GR_SERVICE_DIALS = 1 };                                                         /* gr_service.flags */
enum { GR_TIMER_OF_SERVICE = 1 };                                                      /* flag of set_timer, cancel_timer */
enum { GR_JOB_ONCE = 1 };                                                              /* flag of start_job */
enum { GR_FAULT_CLOSES = 1 };                                                        /* flag of fault_reply */
enum { GR_RUN_STATE_LOST = 1 };                                                        /* returned by run */

typedef struct gr_bytes {
    const uint8_t *ptr;
    size_t len;
} gr_bytes;

typedef struct gr_sink {
    void *ctx;
    void (*put)(void *ctx, gr_bytes bytes);
} gr_sink;

typedef struct gr_turn gr_turn; /* the host's */

typedef struct gr_action {
    uint32_t kind;
    uint32_t detail;
    gr_bytes data;
    /* Since 1.2. */
    gr_bytes name;
    uint64_t from;
} gr_action;

typedef struct gr_batch {
    uint32_t size;
    uint32_t state_version;
    uint32_t has_state;
    uint32_t action_stride;
    const gr_action *actions; /* action_count of them, action_stride bytes apart; none: only read the state; tables may be empty */
    size_t action_count;
    gr_bytes state; /* MessagePack */
    uint64_t session; /* 0: the service itself */
    uint64_t now_ns;
} gr_batch;

typedef struct gr_fault {
    uint32_t size;
    uint32_t kind;
    gr_bytes message;
    gr_bytes file;
    uint32_t line;
} gr_fault;

typedef struct gr_log_event {
    uint32_t size;
    uint32_t level;
    gr_bytes target;
    gr_bytes message;
} gr_log_event;

typedef struct gr_stats { /* numbers of the host; since 1.6 */
    uint32_t size; /* set by the library */
    uint32_t reserved;
    uint64_t sessions, service_sessions, turns, faults, generation, uptime_ns, store_bytes, store_bytes_max;
} gr_stats;

typedef struct gr_host {
    uint32_t size;
    uint32_t log_level;
    uint32_t (*turn_ok)(gr_turn *turn); /* 1: go on with the next action; 0: return now */
    void (*turn_failed)(gr_turn *turn, const gr_fault *fault);
    void (*state)(gr_turn *turn, gr_bytes state);
    uint32_t (*peer)(gr_turn *turn, gr_bytes *text);
    uint32_t (*send)(gr_turn *turn, const gr_bytes *parts, size_t count);
    uint32_t (*close)(gr_turn *turn);
    uint32_t (*subscribe)(gr_turn *turn, gr_bytes topic);
    uint32_t (*unsubscribe)(gr_turn *turn, gr_bytes topic);
    uint32_t (*broadcast)(gr_turn *turn, gr_bytes topic, gr_bytes data, uint32_t flags);
    uint32_t (*table_get)(gr_turn *turn, gr_bytes table, gr_bytes key, gr_bytes *value);
    uint32_t (*table_put)(gr_turn *turn, gr_bytes table, gr_bytes key, gr_bytes value);
    uint32_t (*table_delete)(gr_turn *turn, gr_bytes table, gr_bytes key);
    uint32_t (*table_next)(gr_turn *turn, gr_bytes table, gr_bytes prefix, gr_bytes from, gr_bytes *key,
                           gr_bytes *value);
    void (*log)(gr_turn *turn, const gr_log_event *event);
    /* Since 1.2. */
    uint64_t (*table_len)(gr_turn *turn, gr_bytes table);
    uint32_t (*set_timer)(gr_turn *turn, gr_bytes name, uint64_t after_ns, uint32_t flags);
    uint32_t (*cancel_timer)(gr_turn *turn, gr_bytes name, uint32_t flags);
    uint32_t (*note)(gr_turn *turn, uint64_t session, gr_bytes data);
    uint32_t (*publish)(gr_turn *turn, gr_bytes topic, gr_bytes data, uint32_t flags);
    uint32_t (*start_job)(gr_turn *turn, gr_bytes name, gr_bytes input, uint32_t flags, uint64_t *number);
    uint32_t (*cancel_job)(gr_turn *turn, uint64_t number);
    uint32_t (*connect)(gr_turn *turn, gr_bytes service, gr_bytes addr, gr_bytes context, uint64_t *number);
    uint32_t (*wait_for)(gr_turn *turn, uint64_t session);
    uint32_t (*hold)(gr_turn *turn, uint32_t on);
    /* Since 1.4. */
    uint32_t (*send_line)(gr_turn *turn, gr_bytes line);
    uint32_t (*close_with)(gr_turn *turn, uint32_t code, gr_bytes reason);
    uint32_t (*fact)(gr_turn *turn, gr_bytes name, gr_bytes *value);
    uint32_t (*page)(gr_turn *turn, gr_bytes content_type, gr_bytes page);
    uint32_t (*negotiate)(gr_turn *turn, uint32_t verb, uint32_t option);
    uint32_t (*subnegotiate)(gr_turn *turn, uint32_t option, gr_bytes data);
    uint32_t (*prompt)(gr_turn *turn, gr_bytes text);
    uint32_t (*send_datagram)(gr_turn *turn, gr_bytes to, gr_bytes data);
    /* Since 1.5. */
    uint32_t (*start_tls)(gr_turn *turn, gr_bytes server_name);
    uint32_t (*connect_tls)(gr_turn *turn, gr_bytes service, gr_bytes addr, gr_bytes server_name, gr_bytes context,
                            uint64_t *number);
    uint64_t (*wall)(gr_turn *turn);
    /* Since 1.6. */
    uint32_t (*register_name)(gr_turn *turn, gr_bytes name, uint64_t *before);
    uint32_t (*unregister_name)(gr_turn *turn, gr_bytes name);
    uint64_t (*whereis)(gr_turn *turn, gr_bytes name);
    uint64_t (*name_next)(gr_turn *turn, gr_bytes from, gr_bytes *name);
    uint32_t (*wake)(gr_turn *turn, uint64_t session);
    uint32_t (*broadcast_any)(gr_turn *turn, const gr_bytes *topics, size_t count, gr_bytes data, uint32_t flags);
    uint32_t (*send_to)(gr_turn *turn, uint64_t session, gr_bytes data, uint32_t flags);
    uint32_t (*close_session)(gr_turn *turn, uint64_t session);
    uint64_t (*topic_len)(gr_turn *turn, gr_bytes topic);
    uint32_t (*topic_next)(gr_turn *turn, gr_bytes from, gr_bytes *name);
    uint32_t (*wake_when_drained)(gr_turn *turn);
    uint64_t (*unsent)(gr_turn *turn);
    uint64_t (*session_next)(gr_turn *turn, uint64_t after);
    uint32_t (*table_seek)(gr_turn *turn, gr_bytes table, gr_bytes prefix, gr_bytes from, uint32_t flags, gr_bytes *key,
                           gr_bytes *value);
    uint32_t (*table_drop_prefix)(gr_turn *turn, gr_bytes table, gr_bytes prefix);
    uint32_t (*table_put_until)(gr_turn *turn, gr_bytes table, gr_bytes key, gr_bytes value, uint64_t until_ns);
    uint32_t (*frame_max)(gr_turn *turn, uint32_t bytes);
    uint32_t (*idle_after)(gr_turn *turn, uint64_t after_ns);
    uint32_t (*allow)(gr_turn *turn, gr_bytes key, uint64_t interval_ns, uint32_t burst);
    uint64_t (*random)(gr_turn *turn);
    uint32_t (*stats)(gr_turn *turn, gr_stats *stats);
    /* since 1.7; what the peer is told if the turn fails: a line, unless it is empty */
    uint32_t (*fault_reply)(gr_turn *turn, gr_bytes line, uint32_t flags);
} gr_host;

typedef struct gr_table { /* a table that a service owns */
    uint32_t size;
    uint32_t version;
    gr_bytes name;
    gr_bytes schema; /* JSON Schema of its values */
    uint32_t migration_count;
    uint32_t downgrade_count;
    const uint32_t *migrations;
    const uint32_t *downgrades;
    /* Since 1.6; a table of an older library states a smaller size. */
    uint32_t flags;
    uint32_t reserved;
} gr_table;

typedef struct gr_offered_endpoint { /* an endpoint beside the service's first one */
    uint32_t size;
    uint32_t framing; /* its longest message is gr_service.frame_bytes_max */
    gr_bytes framing_parameters;
    uint16_t port; /* on loopback; 0: none, unless the operator names an address */
    uint16_t flags;
    uint32_t reserved;
} gr_offered_endpoint;

typedef struct gr_frame_cut { /* what cut cuts */
    uint32_t size;
    uint32_t state_len;
    uint8_t state[GR_CUSTOM_STATE_MAX]; /* read, and changed in place */
    size_t consumed;
    size_t message_at;
    size_t message_len;
} gr_frame_cut;

typedef struct gr_service {
    uint32_t size;
    uint32_t state_version;
    gr_bytes name;
    uint16_t port;
    uint16_t flags;
    uint32_t framing;
    uint32_t frame_bytes_max;
    uint32_t migration_count;
    const uint32_t *migrations;
    gr_bytes state_schema; /* JSON Schema; empty: no state */
    void *(*create)(const gr_host *host, gr_bytes config_json, gr_sink error);
    void (*destroy)(void *instance);
    uint32_t (*run)(const void *instance, const gr_host *host, gr_turn *turn, const gr_batch *batch);
    /* Since 1.1; a library of 1.0 states a smaller size. */
    uint32_t downgrade_count;
    uint32_t table_count;
    const uint32_t *downgrades; /* state versions from which the one before can be made */
    const gr_table *tables;     /* table_count of them, table_stride bytes apart */
    uint32_t table_stride;
    uint32_t reserved2;
    /* which: 0 the state, n the n-th table. 0: done, the value is in `result`; 1: not, the reason is in `error`. */
    uint32_t (*convert)(uint32_t which, uint32_t from, uint32_t to, gr_bytes value, gr_sink result, gr_sink error);
    /* Since 1.2. On any thread. 0: the result is in `result`; 1: it failed, the reason is in `error`. */
    uint32_t (*job)(const void *instance, gr_bytes name, gr_bytes input, const uint32_t *cancelled, gr_sink result,
                    gr_sink error);
    /* Since 1.3. GR_LENGTH_PREFIX: the width (1, 2 or 4), then 0 for big or 1 for little endian; since 1.4 also a width
     * of 8, or 2 for base-128 of at most so many bytes; then, if there are four, 1 if it counts itself, and the bytes
     * before it. GR_DELIMITER: the delimiter, 1 to 16 bytes. Since 1.4, GR_WEBSOCKET: its subprotocols, with commas
     * between. GR_CUSTOM: the version of its state. Others: empty. */
    gr_bytes framing_parameters;
    /* Since 1.4. Beside port and framing, which are the first endpoint. */
    uint32_t endpoint_count;
    uint32_t endpoint_stride;
    const gr_offered_endpoint *endpoints; /* endpoint_count of them, endpoint_stride bytes apart */
    /* Since 1.4. A turn of GR_PAGE, which is in no batch; it ends by turn_ok or turn_failed. NULL: no pages. */
    void (*page)(const void *instance, const gr_host *host, gr_turn *turn, gr_bytes path);
    /* Since 1.4, for GR_CUSTOM. Pure functions, on any thread. cut returns a GR_CUT_...: a message is a part of the input,
     * or is put into `message`. encode: 0: the frame is in `result`; 1: it can't be framed, the reason is in `error`. */
    uint32_t (*cut)(gr_bytes input, gr_frame_cut *frame, gr_sink message, gr_sink error);
    uint32_t (*encode)(gr_bytes message, gr_sink result, gr_sink error);
} gr_service;

typedef struct gr_library {
    uint32_t size;
    uint16_t abi_major;
    uint16_t abi_minor;
    gr_bytes name;
    const gr_service *services; /* service_count of them, service_stride bytes apart */
    uint32_t service_count;
    uint32_t service_stride;
} gr_library;

/* The note, of which a library has one. `text` is lines of key=value, as state-schema/src/elf_note.rs lists them:
 *
 *   GR_NOTE("abi=1.0\nsdk=c\nentry=greenroom_entry_upper\npanic=unwind\nlibrary=upper\nservice=upper:1\n")
 */
#define GR_NOTE(text_)                                                                        \
    __attribute__((used, section(".note.greenroom"), aligned(4))) static const struct {      \
        uint32_t owner_len, text_len, kind;                                                   \
        char owner[12];                                                                       \
        char text[(sizeof(text_) + 3) / 4 * 4];                                               \
    } greenroom_note = {10, (sizeof(text_) + 3) / 4 * 4, 0x47524e4d, "Greenroom", text_};

#endif
