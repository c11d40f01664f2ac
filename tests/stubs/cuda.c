/* A CUDA driver in name: memory is the host's, a launch counts, and what a test wants to fail does.
 *
 * VERSION         what cuDriverGetVersion says
 * LACKING         cuMemAlloc_v2 is not there
 * BROKEN_INIT     cuInit fails with this status
 * ABSENT_DEVICES  cuInit finds no device
 * MAJOR, MINOR    compute capability of both devices
 * NO_HOST_MEMORY  there is no page-locked memory
 * REFUSED_IMAGE   no module is loaded
 */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef VERSION
#define VERSION 13000
#endif
#ifndef MAJOR
#define MAJOR 9
#define MINOR 0
#endif

typedef unsigned long long address;
typedef struct { char name[64]; } function;

enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, STUB = 34, NO_DEVICE = 100, INVALID_IMAGE = 200, NOT_FOUND = 500,
       ILLEGAL_ADDRESS = 700 };

/* What a launch did wrong is told later, as by the real one. */
static int pending;
static int allocations;
static float ticks;

/* How much of what was reserved, loaded and made is left. */
int stub_left(void) { return allocations; }

int cuDriverGetVersion(int *version) { *version = VERSION; return OK; }

int cuInit(unsigned flags) {
#if defined(ABSENT_DEVICES)
    return NO_DEVICE;
#elif defined(BROKEN_INIT)
    return BROKEN_INIT;
#else
    return flags ? INVALID_VALUE : OK;
#endif
}

int cuGetErrorName(int status, const char **name) {
    switch (status) {
    case STUB: *name = "CUDA_ERROR_STUB_LIBRARY"; return OK;
    case INVALID_VALUE: *name = "CUDA_ERROR_INVALID_VALUE"; return OK;
    case INVALID_IMAGE: *name = "CUDA_ERROR_INVALID_IMAGE"; return OK;
    case NOT_FOUND: *name = "CUDA_ERROR_NOT_FOUND"; return OK;
    case ILLEGAL_ADDRESS: *name = "CUDA_ERROR_ILLEGAL_ADDRESS"; return OK;
    case 802: *name = "CUDA_ERROR_SYSTEM_NOT_READY"; return OK;
    default: *name = NULL; return INVALID_VALUE;
    }
}
int cuGetErrorString(int status, const char **text) {
    const char *name;
    *text = cuGetErrorName(status, &name) == OK ? "what the driver says" : NULL;
    return *text ? OK : INVALID_VALUE;
}

int cuDeviceGetCount(int *count) { *count = 2; return OK; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return OK; }
int cuDeviceGetName(char *name, int len, int device) { snprintf(name, len, "Pretended GPU %d", device); return OK; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 75 ? MAJOR : attribute == 76 ? MINOR : attribute == 16 ? 132 : 0;
    return OK;
}

int cuDevicePrimaryCtxRetain(void **context, int device) { allocations++; *context = malloc(1); return OK; }
int cuDevicePrimaryCtxRelease_v2(int device) { allocations--; return OK; }
int cuCtxSetCurrent(void *context) { return context ? OK : INVALID_VALUE; }

int cuMemGetInfo_v2(size_t *free, size_t *total) { *free = 7 << 20; *total = 8 << 20; return OK; }
#ifndef LACKING
int cuMemAlloc_v2(address *at, size_t bytes) {
    if (!bytes) return INVALID_VALUE;
    if (bytes > (size_t)1 << 40) return OUT_OF_MEMORY;
    allocations++;
    *at = (address)aligned_alloc(256, (bytes + 255) / 256 * 256);
    return OK;
}
#endif
int cuMemFree_v2(address at) { allocations--; free((void *)at); return OK; }
int cuMemAllocHost_v2(void **memory, size_t bytes) {
#ifdef NO_HOST_MEMORY
    return OUT_OF_MEMORY;
#else
    allocations++;
    *memory = malloc(bytes);
    return OK;
#endif
}
int cuMemFreeHost(void *memory) { allocations--; free(memory); return OK; }
int cuMemcpyHtoDAsync_v2(address to, const void *from, size_t bytes, void *stream) {
    if (pending) return pending;
    memcpy((void *)to, from, bytes);
    return OK;
}
int cuMemcpyDtoHAsync_v2(void *to, address from, size_t bytes, void *stream) {
    if (pending) return pending;
    memcpy(to, (void *)from, bytes);
    return OK;
}

int cuStreamCreate(void **stream, unsigned flags) { allocations++; *stream = malloc(1); return OK; }
int cuStreamSynchronize(void *stream) { return pending; }
int cuStreamDestroy_v2(void *stream) { allocations--; free(stream); return OK; }

int cuEventCreate(void **event, unsigned flags) { allocations++; *event = calloc(1, sizeof(float)); return OK; }
int cuEventRecord(void *event, void *stream) { *(float *)event = ticks++; return OK; }
int cuEventSynchronize(void *event) { return OK; }
int cuEventElapsedTime(float *ms, void *from, void *to) { *ms = *(float *)to - *(float *)from; return OK; }
int cuEventDestroy_v2(void *event) { allocations--; free(event); return OK; }

int cuModuleLoadData(void **module, const void *image) {
#ifdef REFUSED_IMAGE
    return INVALID_IMAGE;
#endif
    if (memcmp(image, "pretended", 9)) return INVALID_IMAGE;
    allocations++;
    *module = malloc(1);
    return OK;
}
int cuModuleUnload(void *module) { allocations--; free(module); return OK; }
int cuModuleGetFunction(void **f, void *module, const char *name) {
    static function functions[8];
    static int count;
    if (strcmp(name, "count")) return NOT_FOUND;
    *f = &functions[count++ % 8];
    strcpy(((function *)*f)->name, name);
    return OK;
}
int cuFuncSetAttribute(void *f, int attribute, int value) { return attribute == 8 && value <= 227 << 10 ? OK : INVALID_VALUE; }
int cuFuncGetParamInfo(void *f, size_t index, size_t *offset, size_t *size) { *offset = 0; *size = 16; return OK; }
int cuLaunchKernel(void *f, unsigned x, unsigned y, unsigned z, unsigned tx, unsigned ty, unsigned tz, unsigned shared,
                   void *stream, void **parameters, void **extra) {
    const struct { float *out; int n; float factor; } *a = parameters[0];
    if (pending) return pending;
    if (!x || !y || !z || strcmp(((function *)f)->name, "count")) return INVALID_VALUE;
    if (!a->out) pending = ILLEGAL_ADDRESS;
    for (int i = 0; a->out && i < a->n; i++) a->out[i] = i * a->factor;
    return OK;
}
