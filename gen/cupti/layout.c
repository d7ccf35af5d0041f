/* Prints where the fields of CUPTI's activity records stand, as Rust (no argument) or as C macros
 * (any argument), out of NVIDIA's headers, which are not ours to carry along. */
#include <cupti.h>
#include <stddef.h>
#include <stdio.h>

static int c;

static void number(const char *name, unsigned long value) {
  if (c)
    printf("#define CUPTI_%s %luUL\n", name, value);
  else
    printf("pub const %s: usize = %lu;\n", name, value);
}

#define SIZE(name, type) number(name "_SIZE", sizeof(CUpti_Activity##type))
#define AT(name, type, field) number(name, offsetof(CUpti_Activity##type, field))
#define VALUE(name, value) number(name, (unsigned long)(value))

int main(int argc, char **argv) {
  (void)argv;
  c = argc > 1;
  if (!c)
    printf("// Made by gen/cupti.sh from CUPTI's headers; do not edit.\n\n");
  else
    printf("/* Made by gen/cupti.sh from CUPTI's headers; do not edit. */\n\n");
  VALUE("API_VERSION", CUPTI_API_VERSION);
  VALUE("KIND_MEMCPY", CUPTI_ACTIVITY_KIND_MEMCPY);
  VALUE("KIND_MEMSET", CUPTI_ACTIVITY_KIND_MEMSET);
  VALUE("KIND_DRIVER", CUPTI_ACTIVITY_KIND_DRIVER);
  VALUE("KIND_KERNEL", CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL);
  VALUE("KIND_OVERHEAD", CUPTI_ACTIVITY_KIND_OVERHEAD);
  VALUE("KIND_SYNCHRONIZATION", CUPTI_ACTIVITY_KIND_SYNCHRONIZATION);
  VALUE("KIND_EXTERNAL", CUPTI_ACTIVITY_KIND_EXTERNAL_CORRELATION);
  VALUE("EXTERNAL_CUSTOM0", CUPTI_EXTERNAL_CORRELATION_KIND_CUSTOM0);
  VALUE("ERROR_MAX_LIMIT_REACHED", CUPTI_ERROR_MAX_LIMIT_REACHED);
  VALUE("ERROR_INSUFFICIENT_PRIVILEGES", CUPTI_ERROR_INSUFFICIENT_PRIVILEGES);
  VALUE("ERROR_MULTIPLE_SUBSCRIBERS", CUPTI_ERROR_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED);
  VALUE("FLUSH_FORCED", CUPTI_ACTIVITY_FLAG_FLUSH_FORCED);

  SIZE("KERNEL", Kernel10);
  AT("KERNEL_REGISTERS", Kernel10, registersPerThread);
  AT("KERNEL_START", Kernel10, start);
  AT("KERNEL_END", Kernel10, end);
  AT("KERNEL_DEVICE", Kernel10, deviceId);
  AT("KERNEL_STREAM", Kernel10, streamId);
  AT("KERNEL_GRID", Kernel10, gridX);
  AT("KERNEL_BLOCK", Kernel10, blockX);
  AT("KERNEL_STATIC_SHARED", Kernel10, staticSharedMemory);
  AT("KERNEL_DYNAMIC_SHARED", Kernel10, dynamicSharedMemory);
  AT("KERNEL_CORRELATION", Kernel10, correlationId);
  AT("KERNEL_NAME", Kernel10, name);
  AT("KERNEL_GRAPH_NODE", Kernel10, graphNodeId);
  AT("KERNEL_GRAPH", Kernel10, graphId);

  SIZE("MEMCPY", Memcpy6);
  AT("MEMCPY_DIRECTION", Memcpy6, copyKind);
  AT("MEMCPY_BYTES", Memcpy6, bytes);
  AT("MEMCPY_START", Memcpy6, start);
  AT("MEMCPY_END", Memcpy6, end);
  AT("MEMCPY_DEVICE", Memcpy6, deviceId);
  AT("MEMCPY_STREAM", Memcpy6, streamId);
  AT("MEMCPY_CORRELATION", Memcpy6, correlationId);

  SIZE("MEMSET", Memset4);
  AT("MEMSET_BYTES", Memset4, bytes);
  AT("MEMSET_START", Memset4, start);
  AT("MEMSET_END", Memset4, end);
  AT("MEMSET_DEVICE", Memset4, deviceId);
  AT("MEMSET_STREAM", Memset4, streamId);
  AT("MEMSET_CORRELATION", Memset4, correlationId);

  SIZE("SYNC", Synchronization2);
  AT("SYNC_START", Synchronization2, start);
  AT("SYNC_END", Synchronization2, end);
  AT("SYNC_STREAM", Synchronization2, streamId);
  AT("SYNC_CORRELATION", Synchronization2, correlationId);

  SIZE("EXTERNAL", ExternalCorrelation);
  AT("EXTERNAL_KIND", ExternalCorrelation, externalKind);
  AT("EXTERNAL_ID", ExternalCorrelation, externalId);
  AT("EXTERNAL_CORRELATION", ExternalCorrelation, correlationId);

  SIZE("API", API);
  AT("API_START", API, start);
  AT("API_END", API, end);
  AT("API_CORRELATION", API, correlationId);
  return 0;
}
