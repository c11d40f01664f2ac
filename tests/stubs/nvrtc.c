/* NVRTC in name: every program compiles to the same image, unless it says #error. */
#include <stdlib.h>
#include <string.h>

#define PTX "pretended PTX"
#define CUBIN "pretended cubin"

typedef struct { int fails; } program;

static int compiled;
static const char log_right[] = "ptxas info    : Compiling entry function 'count' for 'sm_90a'\n"
                                "ptxas info    : Used 7 registers, used 0 barriers\n";
static const char log_wrong[] = "count.cu(1): error: as was asked for\n";

/* How often something was compiled. */
int stub_compiled(void) { return compiled; }

int nvrtcVersion(int *major, int *minor) { *major = 13; *minor = 0; return 0; }
int nvrtcGetNumSupportedArchs(int *count) { *count = 3; return 0; }
int nvrtcGetSupportedArchs(int *archs) { archs[0] = 75; archs[1] = 80; archs[2] = 90; return 0; }
int nvrtcCreateProgram(program **p, const char *text, const char *name, int headers, const char *const *texts,
                       const char *const *names) {
    *p = malloc(sizeof(program));
    (*p)->fails = strstr(text, "#error") != NULL;
    return 0;
}
int nvrtcDestroyProgram(program **p) { free(*p); *p = NULL; return 0; }
int nvrtcCompileProgram(program *p, int count, const char *const *options) { compiled++; return p->fails ? 6 : 0; }
int nvrtcGetProgramLogSize(program *p, size_t *size) { *size = p->fails ? sizeof log_wrong : sizeof log_right; return 0; }
int nvrtcGetProgramLog(program *p, char *log) { strcpy(log, p->fails ? log_wrong : log_right); return 0; }
int nvrtcGetCUBINSize(program *p, size_t *size) { *size = sizeof CUBIN; return 0; }
int nvrtcGetCUBIN(program *p, char *image) { strcpy(image, CUBIN); return 0; }
int nvrtcGetPTXSize(program *p, size_t *size) { *size = sizeof PTX; return 0; }
int nvrtcGetPTX(program *p, char *image) { strcpy(image, PTX); return 0; }
