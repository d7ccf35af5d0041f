/* A stand-in for libcupti.so.13 that delivers records of the real layout, for tests: what a test
 * scripts through standin_* comes back through CUPTI's own functions. layout.h says where fields
 * stand in CUDA 13's records. */
#include "layout.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef void (*request_fn)(uint8_t **, size_t *, size_t *);
typedef void (*complete_fn)(void *, uint32_t, uint8_t *, size_t, size_t);

/* Records come from one thread and are flushed by another. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static request_fn request;
static complete_fn complete;
static uint64_t (*clock_fn)(void);
static uint8_t *buffer;
static size_t size, used;
static size_t dropped;
static uint32_t enabled[64];
static int refuse; /* status of every enable */
static uint32_t version = CUPTI_API_VERSION;
/* Pushed ids are each thread's own. */
static _Thread_local uint64_t external[16];
static _Thread_local int depth;
/* Sizes of the records in the buffer, in order: newer libraries have longer ones. */
static size_t sizes[65536];
static size_t records, extra;

int cuptiGetVersion(uint32_t *out) { *out = version; return 0; }
int cuptiGetResultString(int status, const char **out) {
  (void)status;
  *out = "a status of the stand-in";
  return 0;
}
int cuptiActivityRegisterCallbacks(request_fn r, complete_fn c) {
  request = r;
  complete = c;
  return 0;
}
int cuptiActivityRegisterTimestampCallback(uint64_t (*c)(void)) {
  for (int i = 0; i < 64; i++)
    if (enabled[i]) return 1; /* too late: a kind is enabled */
  clock_fn = c;
  return 0;
}
int cuptiActivityEnable(uint32_t kind) {
  const char *status = getenv("PACER_STANDIN_REFUSE"); /* as if another profiler were there */
  if (status && atoi(status)) return atoi(status);
  if (refuse) return refuse;
  if (kind >= 64) return 21;
  enabled[kind] = 1;
  return 0;
}
int cuptiActivityDisable(uint32_t kind) { enabled[kind % 64] = 0; return 0; }
int cuptiActivityPushExternalCorrelationId(uint32_t kind, uint64_t id) {
  (void)kind;
  if (depth == 16) return 1;
  external[depth++] = id;
  return 0;
}
int cuptiActivityPopExternalCorrelationId(uint32_t kind, uint64_t *last) {
  (void)kind;
  if (depth == 0) return 1;
  *last = external[--depth];
  return 0;
}
int cuptiActivityGetNumDroppedRecords(void *context, uint32_t stream, size_t *out) {
  (void)context, (void)stream;
  *out = dropped;
  dropped = 0;
  return 0;
}

static uint8_t *current;
static size_t *given_sizes;
static size_t given, at;

int cuptiActivityGetNextRecord(uint8_t *start, size_t valid, uint8_t **record) {
  (void)valid;
  /* The sizes stand at the end of the buffer, where the real library keeps its own knowledge. */
  if (*record == NULL) {
    current = start;
    at = 0;
    memcpy(&given, start + valid, sizeof given);
    given_sizes = (size_t *)(start + valid + sizeof given);
    if (given == 0) return CUPTI_ERROR_MAX_LIMIT_REACHED;
    *record = start;
    return 0;
  }
  current += given_sizes[at++];
  if (at >= given) return CUPTI_ERROR_MAX_LIMIT_REACHED;
  *record = current;
  return 0;
}

static void deliver(void) {
  if (!buffer) return;
  memcpy(buffer + used, &records, sizeof records);
  memcpy(buffer + used + sizeof records, sizes, records * sizeof sizes[0]);
  complete(NULL, 0, buffer, size, used);
  buffer = NULL;
  used = records = 0;
}

int cuptiActivityFlushAll(uint32_t flag) {
  pthread_mutex_lock(&lock);
  if (flag & CUPTI_FLUSH_FORCED) deliver();
  pthread_mutex_unlock(&lock);
  return 0;
}

/* Room for a record of `bytes`, 8-byte aligned and zeroed; NULL if it is dropped. */
static uint8_t *room(uint32_t kind, size_t bytes) {
  if (kind < 64 && !enabled[kind] && kind != 60) return NULL;
  bytes += extra;
  bytes = (bytes + 7) / 8 * 8;
  if (buffer && used + bytes + (records + 2) * sizeof(size_t) > size) deliver();
  if (!buffer) {
    size_t most;
    request(&buffer, &size, &most);
    if (!buffer) {
      dropped++;
      return NULL;
    }
  }
  uint8_t *r = buffer + used;
  memset(r, 0, bytes);
  memcpy(r, &kind, 4);
  used += bytes;
  sizes[records++] = bytes;
  return r;
}

static void put32(uint8_t *r, size_t at, uint32_t v) { memcpy(r + at, &v, 4); }
static void put64(uint8_t *r, size_t at, uint64_t v) { memcpy(r + at, &v, 8); }

/* What a driver call on this thread does: the external record, then the call's. */
void standin_call(uint32_t correlation) {
  if (!clock_fn) return;
  uint64_t now = clock_fn();
  pthread_mutex_lock(&lock);
  if (depth > 0) {
    uint8_t *e = room(CUPTI_KIND_EXTERNAL, CUPTI_EXTERNAL_SIZE);
    if (e) {
      put32(e, CUPTI_EXTERNAL_KIND, CUPTI_EXTERNAL_CUSTOM0);
      put64(e, CUPTI_EXTERNAL_ID, external[depth - 1]);
      put32(e, CUPTI_EXTERNAL_CORRELATION, correlation);
    }
  }
  uint8_t *a = room(CUPTI_KIND_DRIVER, CUPTI_API_SIZE);
  if (a) {
    put64(a, CUPTI_API_START, now);
    put64(a, CUPTI_API_END, clock_fn());
    put32(a, CUPTI_API_CORRELATION, correlation);
  }
  pthread_mutex_unlock(&lock);
}

void standin_kernel(const char *name, uint64_t start, uint64_t end, uint32_t stream,
                    uint32_t correlation, uint32_t graph, uint64_t node) {
  pthread_mutex_lock(&lock);
  uint8_t *k = room(CUPTI_KIND_KERNEL, CUPTI_KERNEL_SIZE);
  if (!k) {
    pthread_mutex_unlock(&lock);
    return;
  }
  uint16_t registers = 168;
  memcpy(k + CUPTI_KERNEL_REGISTERS, &registers, 2);
  put64(k, CUPTI_KERNEL_START, start);
  put64(k, CUPTI_KERNEL_END, end);
  put32(k, CUPTI_KERNEL_DEVICE, 0);
  put32(k, CUPTI_KERNEL_STREAM, stream);
  for (int i = 0; i < 3; i++) {
    put32(k, CUPTI_KERNEL_GRID + 4 * i, 10 + i);
    put32(k, CUPTI_KERNEL_BLOCK + 4 * i, 20 + i);
  }
  put32(k, CUPTI_KERNEL_STATIC_SHARED, 1024);
  put32(k, CUPTI_KERNEL_DYNAMIC_SHARED, 2048);
  put32(k, CUPTI_KERNEL_CORRELATION, correlation);
  put64(k, CUPTI_KERNEL_NAME, (uint64_t)(uintptr_t)name);
  put64(k, CUPTI_KERNEL_GRAPH_NODE, node);
  put32(k, CUPTI_KERNEL_GRAPH, graph);
  pthread_mutex_unlock(&lock);
}

/* `what`: 0 a copy to the device, 1 a memset, 2 a copy to the host. */
void standin_memory(int what, uint64_t bytes, uint64_t start, uint64_t end, uint32_t stream,
                    uint32_t correlation) {
  int set = what == 1;
  pthread_mutex_lock(&lock);
  uint8_t *m = set ? room(CUPTI_KIND_MEMSET, CUPTI_MEMSET_SIZE)
                   : room(CUPTI_KIND_MEMCPY, CUPTI_MEMCPY_SIZE);
  if (!m) {
    pthread_mutex_unlock(&lock);
    return;
  }
  if (!set) m[CUPTI_MEMCPY_DIRECTION] = what == 2 ? 2 : 1;
  put64(m, set ? CUPTI_MEMSET_BYTES : CUPTI_MEMCPY_BYTES, bytes);
  put64(m, set ? CUPTI_MEMSET_START : CUPTI_MEMCPY_START, start);
  put64(m, set ? CUPTI_MEMSET_END : CUPTI_MEMCPY_END, end);
  put32(m, set ? CUPTI_MEMSET_STREAM : CUPTI_MEMCPY_STREAM, stream);
  put32(m, set ? CUPTI_MEMSET_CORRELATION : CUPTI_MEMCPY_CORRELATION, correlation);
  pthread_mutex_unlock(&lock);
}

void standin_sync(uint64_t start, uint64_t end, uint32_t stream, uint32_t correlation) {
  pthread_mutex_lock(&lock);
  uint8_t *s = room(CUPTI_KIND_SYNCHRONIZATION, CUPTI_SYNC_SIZE);
  if (!s) {
    pthread_mutex_unlock(&lock);
    return;
  }
  put64(s, CUPTI_SYNC_START, start);
  put64(s, CUPTI_SYNC_END, end);
  put32(s, CUPTI_SYNC_STREAM, stream);
  put32(s, CUPTI_SYNC_CORRELATION, correlation);
  pthread_mutex_unlock(&lock);
}

/* A record of a kind that no version has. */
void standin_unknown(void) { room(60, 72); }
/* As a newer library does: every record is so much longer. */
void standin_longer(size_t bytes) { extra = bytes; }
void standin_drop(size_t n) { dropped += n; }
void standin_refuse(int status) { refuse = status; }
void standin_version(uint32_t v) { version = v; }
uint64_t standin_now(void) { return clock_fn ? clock_fn() : 0; }
