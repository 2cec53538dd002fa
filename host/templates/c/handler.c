/* Service `hello`: counts the lines of each session, and sends them back. */
#include "greenroom.h"
#include <stdio.h>
#include <string.h>

/* What a host reads before it loads the library: a service with the version of its state. */
GR_NOTE("abi=1.0\nsdk=c\nentry=greenroom_entry_hello\npanic=unwind\nlibrary=hello\nservice=hello:1\n")

#define TEXT(s) {(const uint8_t *)(s), sizeof(s) - 1}

/* State of a session: {"lines": N} as MessagePack, a map of one entry. The host keeps it across
 * builds and crashes. A change of its shape needs another state_version, and `convert`. */
enum { HEAD = 7, STATE = HEAD + 5 };
static const uint8_t head[STATE] = {0x81, 0xa5, 'l', 'i', 'n', 'e', 's', 0xce};
#define SCHEMA "{\"type\":\"object\",\"properties\":{\"lines\":{\"type\":\"integer\"}},\"required\":[\"lines\"]}"

/* The number may have any width: `greenroom state set` writes the shortest. */
static uint32_t read_lines(const gr_batch *batch) {
    uint32_t lines = 0;
    if (!batch->has_state || batch->state.len <= HEAD) return 0;
    if (batch->state.ptr[HEAD] < 0x80) return batch->state.ptr[HEAD];
    for (size_t k = HEAD + 1; k < batch->state.len; k++) lines = lines << 8 | batch->state.ptr[k];
    return lines;
}

static void write_lines(const gr_host *host, gr_turn *turn, uint32_t lines) {
    uint8_t state[STATE];
    memcpy(state, head, STATE);
    for (int k = 0; k < 4; k++) state[HEAD + 1 + k] = (uint8_t)(lines >> (24 - 8 * k));
    host->state(turn, (gr_bytes){state, STATE});
}

/* Builds the service from its settings, as JSON. NULL refuses the build; `error` says why. */
static void *create(const gr_host *host, gr_bytes config, gr_sink error) {
    static int instance;
    (void)host;
    if (config.len != 2) { /* anything but {} */
        error.put(error.ctx, (gr_bytes)TEXT("hello has no settings"));
        return NULL;
    }
    return &instance;
}

static void destroy(void *self) { (void)self; }

/* Runs a batch of actions of one session. Each is a turn: turn_ok keeps what it did, and
 * turn_failed undoes it. */
static uint32_t run(const void *self, const gr_host *host, gr_turn *turn, const gr_batch *batch) {
    uint32_t lines = read_lines(batch), before = lines;
    (void)self;
    for (size_t i = 0; i < batch->action_count; i++) {
        const gr_action *action = (const void *)((const char *)batch->actions + i * batch->action_stride);
        if (action->kind == GR_OPENED) {
            gr_bytes welcome = TEXT("Welcome. Say something.\n");
            host->send(turn, &welcome, 1);
        }
        /* Change the answer, save, and the connected client gets it at its next line. */
        if (action->kind == GR_MESSAGE) {
            char number[16];
            int length = snprintf(number, sizeof number, "%u: ", ++lines);
            gr_bytes parts[3] = {{(uint8_t *)number, (size_t)length}, action->data, TEXT("\n")};
            host->send(turn, parts, 3);
        }
        if (!host->turn_ok(turn)) break;
    }
    /* A batch without actions asks what would be stored. */
    if (lines != before || (batch->has_state && !batch->action_count)) write_lines(host, turn, lines);
    return 0;
}

static const gr_service service = {
    .size = sizeof(gr_service),
    .state_version = 1,
    .name = TEXT("hello"),
    .port = 4100, /* on loopback, unless greenroom.toml says otherwise */
    .framing = GR_LINES,
    .frame_bytes_max = 1024, /* longest line */
    .state_schema = TEXT(SCHEMA),
    .create = create,
    .destroy = destroy,
    .run = run,
};

static const gr_library library = {
    .size = sizeof(gr_library),
    .abi_major = GR_ABI_MAJOR,
    .abi_minor = GR_ABI_MINOR,
    .name = TEXT("hello"),
    .services = &service,
    .service_count = 1,
    .service_stride = sizeof(gr_service),
};

const gr_library *greenroom_entry_hello(void) { return &library; }
