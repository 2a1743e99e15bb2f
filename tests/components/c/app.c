/* A program of a user's, in C with its standard library; the canonical ABI is written by hand.
   Built by zig's clang for wasm32-wasi, and made a component with the preview 1 adapter. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define IMPORT(module, name) __attribute__((import_module(module), import_name(name)))
#define EXPORT(name) __attribute__((export_name(name)))
#define COMMON "inferlet:core/common"
#define MESSAGE "inferlet:core/message"
#define RUNTIME "inferlet:core/runtime"
#define POLL "wasi:io/poll@0.2.0"

typedef struct { char *at; size_t size; } text;
typedef struct { text *at; size_t size; } texts;
typedef struct { uint8_t is_some; text some; } option_text;
typedef struct { uint8_t is_some; int32_t some; } option_handle;
typedef struct { uint8_t is_err; text err; } result;

IMPORT(RUNTIME, "get-arguments") void get_arguments(texts *);
IMPORT(RUNTIME, "set-return") void set_return(const char *, size_t);
IMPORT(MESSAGE, "send") void send_message(const char *, size_t);
IMPORT(MESSAGE, "receive") int32_t receive(void);
IMPORT(MESSAGE, "[method]receive-result.pollable") int32_t message_pollable(int32_t);
IMPORT(MESSAGE, "[method]receive-result.get") void message_get(int32_t, option_text *);
IMPORT(MESSAGE, "[resource-drop]receive-result") void drop_receive_result(int32_t);
IMPORT(MESSAGE, "receive-blob") int32_t receive_blob(void);
IMPORT(MESSAGE, "send-blob") void send_blob(int32_t);
IMPORT(COMMON, "[method]blob-result.pollable") int32_t blob_pollable(int32_t);
IMPORT(COMMON, "[method]blob-result.get") void blob_get(int32_t, option_handle *);
IMPORT(COMMON, "[resource-drop]blob-result") void drop_blob_result(int32_t);
IMPORT(COMMON, "[constructor]blob") int32_t new_blob(const char *, size_t);
IMPORT(COMMON, "[method]blob.read") void blob_read(int32_t, uint64_t, uint64_t, text *);
IMPORT(COMMON, "[method]blob.size") uint64_t blob_size(int32_t);
IMPORT(COMMON, "[resource-drop]blob") void drop_blob(int32_t);
IMPORT(POLL, "[method]pollable.block") void block(int32_t);
IMPORT(POLL, "[resource-drop]pollable") void drop_pollable(int32_t);

EXPORT("cabi_realloc") void *cabi_realloc(void *old, size_t old_size, size_t align, size_t size) {
    (void)old_size, (void)align;
    if (size == 0) return (void *)align;
    void *at = realloc(old, size);
    if (at == NULL) abort();
    return at;
}

static text next_message(void) {
    int32_t waiting = receive(), pollable = message_pollable(waiting);
    option_text got;
    block(pollable);
    message_get(waiting, &got);
    drop_pollable(pollable);
    drop_receive_result(waiting);
    return got.some;
}

static int32_t next_blob(void) {
    int32_t waiting = receive_blob(), pollable = blob_pollable(waiting);
    option_handle got;
    block(pollable);
    blob_get(waiting, &got);
    drop_pollable(pollable);
    drop_blob_result(waiting);
    return got.some;
}

static int is(text message, const char *word) {
    return message.size == strlen(word) && memcmp(message.at, word, message.size) == 0;
}

EXPORT("inferlet:core/run#run") result *run(void) {
    static result ended;
    static const char failure[] = "told to fail: ünlucky";
    texts arguments;
    get_arguments(&arguments);
    printf("arguments:");
    for (size_t i = 0; i < arguments.size; i++)
        printf(" %.*s", (int)arguments.at[i].size, arguments.at[i].at);
    printf("\n");
    fflush(stdout);
    fprintf(stderr, "ready\n");

    text message = next_message();
    if (is(message, "fail")) {
        ended = (result){1, {(char *)failure, sizeof failure - 1}};
        return &ended;
    }
    if (is(message, "raise")) abort();
    char *reply = malloc(message.size + 6);
    memcpy(reply, "echo: ", 6);
    memcpy(reply + 6, message.at, message.size);
    send_message(reply, message.size + 6);

    int32_t blob = next_blob();
    text data;
    blob_read(blob, 0, blob_size(blob), &data);
    drop_blob(blob);
    for (size_t i = 0; i < data.size / 2; i++) {
        char first = data.at[i];
        data.at[i] = data.at[data.size - 1 - i];
        data.at[data.size - 1 - i] = first;
    }
    send_blob(new_blob(data.at, data.size));
    char value[32];
    set_return(value, snprintf(value, sizeof value, "%zu bytes", data.size));
    ended = (result){0};
    return &ended;
}
