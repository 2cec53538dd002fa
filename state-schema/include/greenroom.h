/* The C ABI between Greenroom's host and a handler library, version 1.9. For C11 and C++17.
 *
 * A library exports one function, named in its ELF note, that returns a pointer to a gr_library.
 * In C++ that function is `extern "C"`. The rules:
 *
 * - Every struct starts with its size. Within a major version fields are only appended. A library
 *   sets `size` to sizeof of the struct that it was built with, and all that it leaves out to 0.
 * - Strings and bytes are pointer and length, and have no zero byte at their end. Strings are UTF-8.
 *   Both are valid for the call that carries them, unless the field says otherwise.
 * - What one side allocates, that side frees: results go into a gr_sink, which copies them.
 * - Nothing unwinds across: no exception, no longjmp, no end of a thread.
 * - A handler keeps nothing between turns: an instance never changes after create.
 * - "since" names the minor version that brought a field. A host loads libraries of its own minor
 *   version and of older ones, so a library may call all that stands here.
 * - Times are nanoseconds (`_ns`), lengths and sizes bytes. Reserved fields are 0.
 *
 * The same types stand in Rust in state-schema/src/abi.rs; a test compares their layout.
 */
#ifndef GREENROOM_H
#define GREENROOM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define GR_ABI_MAJOR 1
#define GR_ABI_MINOR 9

/* Answers of the host's functions, unless the function says otherwise. */
enum {
    GR_OK = 0,     /* done, or staged to be done when the turn succeeds */
    GR_ABSENT = 1, /* nothing is there under this key or name */
    GR_LIMIT = 2,  /* a limit of the host refuses it; the turn fails, whatever it does then */
    GR_INVALID = 3 /* an argument is unusable, or no turn is under way */
};

/* gr_action.kind: what happened. `detail`, `data`, `name` and `from` are 0 or empty, but for: */
enum {
    GR_OPENED = 1,  /* session opened */
    GR_MESSAGE = 2, /* data: a whole message without its framing */
    GR_CLOSED = 3,  /* the session's last turn; detail: why, below */
    /* Since 1.2. */
    GR_TIMER = 4,     /* a timer is due; name: its name */
    GR_NOTE = 5,      /* data: a note; from: the session that sent it */
    GR_PUBLISHED = 6, /* data: a message; name: its topic; from: the session that published it */
    GR_JOB = 7,       /* job `from` is over; name: its function; detail: how; data: result or reason */
    GR_DIALED = 8,    /* behind GR_OPENED; from: the session that connected; data: its context */
    GR_CONNECT = 9,   /* connection `from`; detail: how it ended; data: session in digits, or reason */
    /* Since 1.4. */
    GR_PAGE = 10,           /* a GET or HEAD; in no batch: gr_service.page runs it */
    GR_NEGOTIATED = 11,     /* detail: telnet option; data: the peer's verb, and 1 if it is on now */
    GR_SUBNEGOTIATION = 12, /* detail: telnet option; data: the bytes behind it */
    GR_DATAGRAM = 13,       /* to the service; data: its bytes; name: its sender, IP and port */
    /* Since 1.5. */
    GR_TLS_STARTED = 14, /* the stream is one of TLS from here on */
    GR_STARTED = 15,     /* first turn of the service itself under this build; detail: why */
    /* Since 1.6. */
    GR_WOKEN = 16,  /* the session was woken */
    GR_IDLE = 17,   /* the peer was silent as long as idle_after says */
    GR_MISSED = 18, /* from: so many notes and messages were dropped here */
    GR_EXPIRED = 24, /* to the service; name: a table; data: key of an entry whose time is over */
    /* Since 1.8. */
    GR_DIALOGUE = 25 /* in a rehearsal: what becomes of a dialogue? Told by GR_FAULT_DIALOGUE */
};
enum { GR_STARTED_HOST = 0, GR_STARTED_GENERATION = 1 };        /* detail of GR_STARTED */
enum { GR_CONNECT_OPEN = 0, GR_CONNECT_FAILED = 1 };            /* detail of GR_CONNECT */
enum { GR_JOB_DONE = 0, GR_JOB_FAILED = 1, GR_JOB_LOST = 2 };   /* detail of GR_JOB; lost: not run again */
enum {                                                          /* detail of GR_CLOSED */
    GR_BY_PEER = 1,    /* in an orderly way; what is sent now may still reach the peer */
    GR_BROKEN = 2,     /* nothing can be sent */
    GR_BY_HANDLER = 3, /* by close */
    GR_BY_LIMIT = 4,   /* a message too long, output never read */
    GR_STOPPING = 5,   /* the host stops */
    GR_BY_OPERATOR = 6 /* by a command */
};
enum { /* gr_service.framing: how a stream is cut. Parameters are gr_service.framing_parameters. */
    GR_LINES = 1, /* lines that end in LF or CRLF, which are no part of the message */
    GR_RAW = 2,   /* since 1.2; whatever arrived */
    /* Since 1.3. */
    GR_LENGTH_PREFIX = 3, /* width 1, 2 or 4, then 0 for big or 1 for little endian; since 1.4 also
                           * width 8, or 2 for base-128 of at most so many bytes; then, if there are
                           * four, 1 if the length counts itself, and the bytes before it */
    GR_DELIMITER = 4,     /* parameters: the delimiter, 1 to 16 bytes */
    GR_TELNET = 5,        /* lines between telnet commands */
    /* Since 1.4. */
    GR_WEBSOCKET = 6,  /* whole texts or bytes; parameters: subprotocols with commas between */
    GR_CUSTOM = 7,     /* cut and encode of gr_service; parameter: version of its state, a byte */
    GR_DATAGRAMS = 8,  /* UDP without sessions */
    GR_PEER = 9        /* UDP with a session for each address */
};
enum { GR_CUSTOM_STATE_MAX = 32 }; /* bytes of gr_frame_cut.state */
enum {                             /* returned by gr_service.cut */
    GR_CUT_MORE = 0,    /* no message is whole */
    GR_CUT_MESSAGE = 1, /* a message */
    GR_CUT_SKIPPED = 2, /* bytes that are no message were skipped */
    GR_CUT_INVALID = 3, /* the input breaks the rules: the session is closed */
    GR_CUT_FAILED = 4   /* the framing failed: closed, and counted as a fault */
};
enum { GR_WILL = 251, GR_WONT = 252, GR_DO = 253, GR_DONT = 254 }; /* verbs of negotiate */
enum {                    /* gr_fault.kind */
    GR_FAULT_ERROR = 1,   /* the turn's code says so */
    GR_FAULT_PANIC = 2,   /* it panicked or threw */
    GR_FAULT_STATE = 3,   /* the stored state can't be read: the action was not run, and is kept */
    /* Since 1.8. To GR_DIALOGUE alone, JSON: {"asked": "age", "asks": "color", "kept": 2,
     * "dropped": 1}. asks: question at the peer's next line, null at the end; asked: its place's. */
    GR_FAULT_DIALOGUE = 4
};
enum { GR_LOG_ERROR = 1, GR_LOG_WARN = 2, GR_LOG_INFO = 3, GR_LOG_DEBUG = 4, GR_LOG_TRACE = 5 };
/* Flags of broadcast, broadcast_any, send_to; publish takes the first one. */
enum { GR_BROADCAST_OTHERS = 1 };       /* not to the session whose turn this is */
enum { GR_BROADCAST_LINE = 2 };         /* since 1.4: as send_line sends */
enum { GR_BROADCAST_DROP_IF_SLOW = 4 }; /* since 1.6: not to peers that leave much untaken */
enum { GR_TABLE_HEARS_OF_EXPIRY = 1 };                   /* gr_table.flags: wants GR_EXPIRED */
enum { GR_TABLE_READS_KEYS = 2 }; /* gr_table.flags, since 1.9: convert reads keys, too */
/* gr_service.convert, since 1.9: added to the number of such a table. The value is a key then, both
 * versions are 0, and the result is empty; 1: it is no key of the table. */
#define GR_KEY_OF 0x80000000u
enum { GR_TABLE_BACKWARDS = 1, GR_TABLE_KEY_ALONE = 2 }; /* flags of table_seek */
enum { GR_SERVICE_DIALS = 1 };    /* gr_service.flags: its sessions come from connect; no port */
enum { GR_TIMER_OF_SERVICE = 1 }; /* flag of set_timer, cancel_timer: not the session's */
enum { GR_JOB_ONCE = 1 };         /* flag of start_job: not run again if its process dies */
enum { GR_FAULT_CLOSES = 1 };     /* flag of fault_reply: close the session, too */
enum { GR_RUN_STATE_LOST = 1 };   /* returned by run: the failed turn may have spoilt the state */

/* Borrowed bytes: their owner is the side that made the struct. */
typedef struct gr_bytes {
    const uint8_t *ptr; /* may be NULL if len is 0 */
    size_t len;
} gr_bytes;

/* Place for a result. A function calls put(ctx, bytes) at most once; put copies. */
typedef struct gr_sink {
    void *ctx; /* the host's */
    void (*put)(void *ctx, gr_bytes bytes);
} gr_sink;

/* The host's record of a turn. Valid until run or page returns, on the thread that it runs on. */
typedef struct gr_turn gr_turn;

/* One thing that happened: one turn. */
typedef struct gr_action {
    uint32_t kind;   /* GR_OPENED and so on; others may be added: end their turn by turn_ok */
    uint32_t detail; /* as the kind says */
    gr_bytes data;   /* the message; valid until run returns */
    /* Since 1.2. */
    gr_bytes name;   /* as the kind says; UTF-8 */
    uint64_t from;   /* a number, as the kind says */
} gr_action;

/* Actions of one session, oldest first. */
typedef struct gr_batch {
    uint32_t size;            /* set by the host */
    uint32_t state_version;   /* of `state`, if has_state; an older one is to be migrated first */
    uint32_t has_state;       /* 0: none yet, start from the default */
    uint32_t action_stride;   /* bytes from one action to the next: not sizeof(gr_action) */
    const gr_action *actions; /* action_count of them */
    size_t action_count;      /* 0: a rehearsal: migrate the state, hand it over, touch nothing else */
    gr_bytes state;           /* as stored: a MessagePack map with field names */
    uint64_t session;         /* its number, never used twice in a host; 0: the service itself */
    uint64_t now_ns;          /* CLOCK_MONOTONIC of this pass */
} gr_batch;

/* Reason why a turn failed. All of it is copied. */
typedef struct gr_fault {
    uint32_t size;
    uint32_t kind;    /* GR_FAULT_... */
    gr_bytes message; /* in words */
    gr_bytes file;    /* source file; empty: unknown */
    uint32_t line;    /* from 1; 0: unknown */
} gr_fault;

/* Event of a log. All of it is copied. */
typedef struct gr_log_event {
    uint32_t size;
    uint32_t level;   /* GR_LOG_... */
    gr_bytes target;  /* module or subsystem */
    gr_bytes message; /* fields appended as name=value */
} gr_log_event;

/* Numbers of the host. Since 1.6. */
typedef struct gr_stats {
    uint32_t size; /* set by the library: so many bytes are written */
    uint32_t reserved;
    uint64_t sessions, service_sessions; /* of the host, of the service; closing ones included */
    uint64_t turns, faults;              /* of the service */
    uint64_t generation;                 /* of the build that runs */
    uint64_t uptime_ns;                  /* since the host began */
    uint64_t store_bytes, store_bytes_max;
} gr_stats;

/* Functions of the host for a turn under way, on its thread. Effects are staged: they happen once
 * turn_ok has ended the turn, all or none. Bytes given are copied. Bytes lent through a pointer are
 * valid until the next call with this turn. A uint32_t returned is GR_OK, GR_ABSENT, GR_LIMIT or
 * GR_INVALID, unless it says otherwise. */
typedef struct gr_host {
    uint32_t size;      /* set by the host */
    uint32_t log_level; /* most detailed GR_LOG_... wanted; may change at any time */
    /* Ends a turn that succeeded. 1: go on with the next action; 0: return now. */
    uint32_t (*turn_ok)(gr_turn *turn);
    /* Ends a turn that failed: its effects are dropped. Hand over the state that the turns before it
     * left, and return. */
    void (*turn_failed)(gr_turn *turn, const gr_fault *fault);
    /* The state that the successful turns left, if it changed: at most once in a run. */
    void (*state)(gr_turn *turn, gr_bytes state);
    /* Address of the peer as text. */
    uint32_t (*peer)(gr_turn *turn, gr_bytes *text);
    /* Sends `count` pieces one after the other, as one message. GR_LIMIT: over turn_bytes_max. */
    uint32_t (*send)(gr_turn *turn, const gr_bytes *parts, size_t count);
    /* Closes the session once its output is flushed. Ends the batch. */
    uint32_t (*close)(gr_turn *turn);
    /* Adds the session to a topic of its library, or takes it off; done already is GR_OK. */
    uint32_t (*subscribe)(gr_turn *turn, gr_bytes topic);
    uint32_t (*unsubscribe)(gr_turn *turn, gr_bytes topic);
    /* Sends bytes to every subscriber. GR_LIMIT: over turn_recipients_max, or turn_bytes_max. */
    uint32_t (*broadcast)(gr_turn *turn, gr_bytes topic, gr_bytes data, uint32_t flags);
    /* Reads a table, this batch's own writes included. GR_ABSENT: no such key. */
    uint32_t (*table_get)(gr_turn *turn, gr_bytes table, gr_bytes key, gr_bytes *value);
    /* Writes a value of MessagePack. GR_INVALID: the table's name is none (letters, digits, - and _).
     * GR_LIMIT: over table_key_bytes_max, table_value_bytes_max, tables_max, table_bytes_max. */
    uint32_t (*table_put)(gr_turn *turn, gr_bytes table, gr_bytes key, gr_bytes value);
    /* Deletes a key; one that isn't there is GR_OK. */
    uint32_t (*table_delete)(gr_turn *turn, gr_bytes table, gr_bytes key);
    /* Finds the first key at or behind `from` that starts with `prefix`. A scan goes on from that
     * key with a zero byte behind it. GR_ABSENT: none. */
    uint32_t (*table_next)(gr_turn *turn, gr_bytes table, gr_bytes prefix, gr_bytes from, gr_bytes *key,
                           gr_bytes *value);
    /* Logs an event. `turn` may be NULL in create and in a job, there on any thread. */
    void (*log)(gr_turn *turn, const gr_log_event *event);

    /* Since 1.2. */

    /* Number of entries, with this batch's writes. */
    uint64_t (*table_len)(gr_turn *turn, gr_bytes table);
    /* Sets a timer, or sets it again: it fires once, after_ns nanoseconds from this pass. */
    uint32_t (*set_timer)(gr_turn *turn, gr_bytes name, uint64_t after_ns, uint32_t flags);
    /* Cancels a timer; one that isn't set is GR_OK. */
    uint32_t (*cancel_timer)(gr_turn *turn, gr_bytes name, uint32_t flags);
    /* Sends a note to a session, this one or another. */
    uint32_t (*note)(gr_turn *turn, uint64_t session, gr_bytes data);
    /* Has every subscriber of a topic run a turn of GR_PUBLISHED. */
    uint32_t (*publish)(gr_turn *turn, gr_bytes topic, gr_bytes data, uint32_t flags);
    /* Starts a job on another thread, and says its number; GR_JOB brings its end. */
    uint32_t (*start_job)(gr_turn *turn, gr_bytes name, gr_bytes input, uint32_t flags, uint64_t *number);
    /* Cancels a job of this session: its result does not come. */
    uint32_t (*cancel_job)(gr_turn *turn, uint64_t number);
    /* Opens a connection to `addr`, IP and port as text: a session of `service`, which gets
     * `context` by GR_DIALED. GR_CONNECT with this number comes back. */
    uint32_t (*connect)(gr_turn *turn, gr_bytes service, gr_bytes addr, gr_bytes context, uint64_t *number);
    /* This session's input waits while another one's peer leaves much untaken: for relays. */
    uint32_t (*wait_for)(gr_turn *turn, uint64_t session);
    /* Holds the session's input, unread, and its peer's end (1), or releases them (0). */
    uint32_t (*hold)(gr_turn *turn, uint32_t on);

    /* Since 1.4. */

    /* Sends a line, given without its end: with LF, or as one text over WebSocket. */
    uint32_t (*send_line)(gr_turn *turn, gr_bytes line);
    /* Closes, and tells the peer: over WebSocket 1000 or 3000 to 4999, and at most 123 bytes. */
    uint32_t (*close_with)(gr_turn *turn, uint32_t code, gr_bytes reason);
    /* A fact of the connection by its name: endpoint, transport, tls, path, ... GR_ABSENT: none. */
    uint32_t (*fact)(gr_turn *turn, gr_bytes name, gr_bytes *value);
    /* Answers GR_PAGE, once: the value of Content-Type, and the page. */
    uint32_t (*page)(gr_turn *turn, gr_bytes content_type, gr_bytes page);
    /* Negotiates a telnet option: GR_WILL and so on. Elsewhere nothing happens, as with the next. */
    uint32_t (*negotiate)(gr_turn *turn, uint32_t verb, uint32_t option);
    /* Sends a subnegotiation of a telnet option. */
    uint32_t (*subnegotiate)(gr_turn *turn, uint32_t option, gr_bytes data);
    /* Sends a prompt: on telnet EOR or GA stands behind it, as was negotiated. */
    uint32_t (*prompt)(gr_turn *turn, gr_bytes text);
    /* Sends a datagram to an address, IP and port as text. A limit may allow no other addresses. */
    uint32_t (*send_datagram)(gr_turn *turn, gr_bytes to, gr_bytes data);

    /* Since 1.5. */

    /* Makes the stream one of TLS behind what was sent. `server_name`: empty, unless the host has
     * connected. GR_INVALID: over UDP, Unix sockets, WebSocket, TLS. */
    uint32_t (*start_tls)(gr_turn *turn, gr_bytes server_name);
    /* Connects over TLS, to a server of that name. */
    uint32_t (*connect_tls)(gr_turn *turn, gr_bytes service, gr_bytes addr, gr_bytes server_name, gr_bytes context,
                            uint64_t *number);
    /* Nanoseconds since 1970, UTC; may go back. */
    uint64_t (*wall)(gr_turn *turn);

    /* Since 1.6. A session returned that is 0: there is none. */

    /* Gives the session a name of the service; `before` gets the one that held it. */
    uint32_t (*register_name)(gr_turn *turn, gr_bytes name, uint64_t *before);
    /* Gives up a name; one that the session does not hold is GR_OK. */
    uint32_t (*unregister_name)(gr_turn *turn, gr_bytes name);
    /* Session that holds a name. */
    uint64_t (*whereis)(gr_turn *turn, gr_bytes name);
    /* First name that is not before `from`, and its session. */
    uint64_t (*name_next)(gr_turn *turn, gr_bytes from, gr_bytes *name);
    /* Has a session of this library run a turn of GR_WOKEN. Wakes that wait are one. */
    uint32_t (*wake)(gr_turn *turn, uint64_t session);
    /* Broadcasts to all on any of `count` topics, once to each. */
    uint32_t (*broadcast_any)(gr_turn *turn, const gr_bytes *topics, size_t count, gr_bytes data, uint32_t flags);
    /* Sends bytes to another session of this library. */
    uint32_t (*send_to)(gr_turn *turn, uint64_t session, gr_bytes data, uint32_t flags);
    /* Closes another session of this library, behind the actions that wait for it. */
    uint32_t (*close_session)(gr_turn *turn, uint64_t session);
    /* Number of sessions on a topic, as this batch found it. */
    uint64_t (*topic_len)(gr_turn *turn, gr_bytes topic);
    /* First topic of this library that is not before `from`. GR_ABSENT: none. */
    uint32_t (*topic_next)(gr_turn *turn, gr_bytes from, gr_bytes *name);
    /* Wakes this session once its output is sent. */
    uint32_t (*wake_when_drained)(gr_turn *turn);
    /* Bytes of output that the kernel had not taken when the batch began. */
    uint64_t (*unsent)(gr_turn *turn);
    /* First open session of the service whose number is above `after`. */
    uint64_t (*session_next)(gr_turn *turn, uint64_t after);
    /* table_next in either direction. GR_TABLE_BACKWARDS: the greatest key below `from`, or of all if
     * that is empty. GR_TABLE_KEY_ALONE: the value is empty, and is not read. */
    uint32_t (*table_seek)(gr_turn *turn, gr_bytes table, gr_bytes prefix, gr_bytes from, uint32_t flags, gr_bytes *key,
                           gr_bytes *value);
    /* Drops all entries whose keys start with `prefix`; empty: all. */
    uint32_t (*table_drop_prefix)(gr_turn *turn, gr_bytes table, gr_bytes prefix);
    /* Writes a value until a time, in nanoseconds since 1970: from then on it is gone. */
    uint32_t (*table_put_until)(gr_turn *turn, gr_bytes table, gr_bytes key, gr_bytes value, uint64_t until_ns);
    /* Longest message of this session's peer in bytes, from the next one on; 0: the service's. */
    uint32_t (*frame_max)(gr_turn *turn, uint32_t bytes);
    /* Wants GR_IDLE after a silence of the peer; 0: none. */
    uint32_t (*idle_after)(gr_turn *turn, uint64_t after_ns);
    /* Takes a token of a key's bucket, which holds `burst` and gets one back each interval_ns.
     * GR_ABSENT: none is left. */
    uint32_t (*allow)(gr_turn *turn, gr_bytes key, uint64_t interval_ns, uint32_t burst);
    /* A random number that no peer can tell; a turn that runs again gets the same. */
    uint64_t (*random)(gr_turn *turn);
    /* Writes numbers of the host into stats->size bytes. */
    uint32_t (*stats)(gr_turn *turn, gr_stats *stats);

    /* Since 1.7. */

    /* What the peer is told if the turn under way fails: a line, unless it is empty. The last call
     * counts. */
    uint32_t (*fault_reply)(gr_turn *turn, gr_bytes line, uint32_t flags);
} gr_host;

/* A table that a service owns. Valid until the process ends, as all that gr_library leads to. */
typedef struct gr_table {
    uint32_t size;
    uint32_t version;           /* of its values, from 1 */
    gr_bytes name;              /* letters, digits, - and _ */
    gr_bytes schema;            /* JSON Schema of its values */
    uint32_t migration_count;   /* of versions in `migrations` */
    uint32_t downgrade_count;   /* of versions in `downgrades` */
    const uint32_t *migrations; /* versions from which convert can make the next one */
    const uint32_t *downgrades; /* versions from which convert can make the one before */
    /* Since 1.6; a table of an older library states a smaller size. */
    uint32_t flags;             /* 0, or GR_TABLE_HEARS_OF_EXPIRY and GR_TABLE_READS_KEYS or either */
    uint32_t reserved;
} gr_table;

/* An endpoint beside the service's first one. Since 1.4. */
typedef struct gr_offered_endpoint {
    uint32_t size;
    uint32_t framing;            /* GR_LINES and so on; longest message: gr_service.frame_bytes_max */
    gr_bytes framing_parameters; /* as in gr_service */
    uint16_t port;               /* on loopback; 0: none, unless the operator names an address */
    uint16_t flags;              /* 0 */
    uint32_t reserved;
} gr_offered_endpoint;

/* What cut cuts. Since 1.4. */
typedef struct gr_frame_cut {
    uint32_t size;                      /* set by the host */
    uint32_t state_len;                 /* bytes of `state` in use */
    uint8_t state[GR_CUSTOM_STATE_MAX]; /* read, and changed in place; counts if input is consumed */
    size_t consumed;                    /* bytes of the input that are done, at least 1 */
    size_t message_at;                  /* where the message begins in the input */
    size_t message_len;                 /* its bytes; no meaning, like message_at, if it was put */
} gr_frame_cut;

/* A service. */
typedef struct gr_service {
    uint32_t size;
    uint32_t state_version;     /* from 1; raised for more than fields added with defaults */
    gr_bytes name;              /* unique in a host: letters, digits, - and _ */
    uint16_t port;              /* on loopback; 0: none, the operator names an address */
    uint16_t flags;             /* since 1.2: 0 or GR_SERVICE_DIALS */
    uint32_t framing;           /* GR_LINES and so on */
    uint32_t frame_bytes_max;   /* longest message in bytes, without its framing */
    uint32_t migration_count;   /* of versions in `migrations` */
    const uint32_t *migrations; /* state versions from which the next one can be made */
    gr_bytes state_schema;      /* JSON Schema; empty: no state */
    /* Builds an instance from its settings, in JSON. NULL: refused; the reason is in `error`. */
    void *(*create)(const gr_host *host, gr_bytes config_json, gr_sink error);
    /* Ends an instance that another build replaced. The memory is the library's. Not called when a worker ends. */
    void (*destroy)(void *instance);
    /* Runs the actions of `batch` in order, a turn each. Returns 0 or GR_RUN_STATE_LOST: then the
     * host runs the turns before the failed one again. One thread at a time for an instance. */
    uint32_t (*run)(const void *instance, const gr_host *host, gr_turn *turn, const gr_batch *batch);
    /* Since 1.1; a library of 1.0 states a smaller size. */
    uint32_t downgrade_count;   /* of versions in `downgrades` */
    uint32_t table_count;       /* of tables */
    const uint32_t *downgrades; /* state versions from which the one before can be made */
    const gr_table *tables;     /* table_count of them, table_stride bytes apart */
    uint32_t table_stride;      /* sizeof(gr_table) */
    uint32_t reserved2;
    /* Takes a value from one version to another, up or down, step by step; from the library's own
     * version to the same: reads it and writes it again. `which`: 0 the state, n the n-th table.
     * 0: the value is in `result`; 1: it can't be; the reason is in `error`. Any thread. */
    uint32_t (*convert)(uint32_t which, uint32_t from, uint32_t to, gr_bytes value, gr_sink result, gr_sink error);
    /* Since 1.2. Runs a job, on any thread, beside turns and other jobs; may block. `cancelled` is
     * not 0 once nobody wants the result: read it as an atomic. Returns as convert does. */
    uint32_t (*job)(const void *instance, gr_bytes name, gr_bytes input, const uint32_t *cancelled, gr_sink result,
                    gr_sink error);
    /* Since 1.3. At most 64 bytes, as the framing says; else empty. */
    gr_bytes framing_parameters;
    /* Since 1.4. Beside port and framing, which are the first endpoint. */
    uint32_t endpoint_count;              /* of endpoints */
    uint32_t endpoint_stride;             /* sizeof(gr_offered_endpoint) */
    const gr_offered_endpoint *endpoints; /* endpoint_count of them, endpoint_stride bytes apart */
    /* A turn of GR_PAGE: answers by page, or not, and ends by turn_ok or turn_failed. NULL: none. */
    void (*page)(const void *instance, const gr_host *host, gr_turn *turn, gr_bytes path);
    /* For GR_CUSTOM. Pure functions, on any thread. cut: takes the next message off `input`, which
     * is not empty; returns GR_CUT_...; a message that is no part of the input goes into `message`. */
    uint32_t (*cut)(gr_bytes input, gr_frame_cut *frame, gr_sink message, gr_sink error);
    /* Frames a message that is sent. Returns as convert does. */
    uint32_t (*encode)(gr_bytes message, gr_sink result, gr_sink error);
} gr_service;

/* A library, as its function returns it. */
typedef struct gr_library {
    uint32_t size;
    uint16_t abi_major;         /* GR_ABI_MAJOR */
    uint16_t abi_minor;         /* GR_ABI_MINOR */
    gr_bytes name;              /* as in the note */
    const gr_service *services; /* service_count of them, service_stride bytes apart */
    uint32_t service_count;
    uint32_t service_stride;    /* sizeof(gr_service) */
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

#ifdef __cplusplus
}
#endif

#endif
