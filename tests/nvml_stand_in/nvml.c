/* A stand-in for libnvidia-ml.so.1, so that the real binding (nvidia-ml-py) runs without a GPU.

   It reads its figures anew for each call from the file that NVML_STAND_IN names, one line each:

       gpu TOTAL_BYTES USED_BYTES        one device; the first is GPU 0
       lost                              a device that fell off the bus
       process GPU PID USED_BYTES        a process on a device; -1 bytes: the driver does not say
       broken                            no call succeeds any more

   Structures and codes are those of nvml.h. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, INSUFFICIENT_SIZE = 7, GPU_IS_LOST = 15, UNKNOWN = 999 };
enum { MOST_DEVICES = 8, MOST_PROCESSES = 64 };

typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned int pid; unsigned long long used; unsigned int gpu_instance, compute_instance; } process_t;

typedef struct {
    int broken, devices, processes;
    int lost[MOST_DEVICES];
    memory_t memory[MOST_DEVICES];
    int device_of[MOST_PROCESSES];
    process_t process[MOST_PROCESSES];
} figures_t;

static char handles[MOST_DEVICES];

static figures_t read_figures(void) {
    figures_t now;
    char line[200];
    long long total, used;
    int device, pid;
    memset(&now, 0, sizeof now);
    FILE *file = fopen(getenv("NVML_STAND_IN"), "r");
    if (!file) { now.broken = 1; return now; }
    while (fgets(line, sizeof line, file)) {
        if (sscanf(line, "gpu %lld %lld", &total, &used) == 2) {
            now.memory[now.devices++] = (memory_t){total, total - used, used};
        } else if (sscanf(line, "process %d %d %lld", &device, &pid, &used) == 3) {
            now.device_of[now.processes] = device;
            now.process[now.processes++] = (process_t){pid, (unsigned long long)used, 0, 0};
        } else if (!strncmp(line, "lost", 4)) {
            now.lost[now.devices++] = 1;
        } else if (!strncmp(line, "broken", 6)) {
            now.broken = 1;
        }
    }
    fclose(file);
    return now;
}

static int state_of(const figures_t *now, void *handle) {
    int device = (int)((char *)handle - handles);
    return now->broken ? UNKNOWN : device >= now->devices ? INVALID_ARGUMENT : now->lost[device] ? GPU_IS_LOST : SUCCESS;
}

int nvmlInitWithFlags(unsigned int flags) { (void)flags; return SUCCESS; }
int nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(int code) { return code == GPU_IS_LOST ? "GPU is lost" : "Unknown Error"; }

int nvmlDeviceGetCount_v2(unsigned int *count) {
    figures_t now = read_figures();
    *count = (unsigned int)now.devices;
    return now.broken ? UNKNOWN : SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **handle) {
    figures_t now = read_figures();
    *handle = &handles[index];
    return state_of(&now, *handle);
}

int nvmlDeviceGetMemoryInfo(void *handle, memory_t *memory) {
    figures_t now = read_figures();
    int state = state_of(&now, handle);
    if (state == SUCCESS) *memory = now.memory[(char *)handle - handles];
    return state;
}

int nvmlDeviceGetUUID(void *handle, char *uuid, unsigned int length) {
    snprintf(uuid, length, "GPU-%d", (int)((char *)handle - handles));
    return SUCCESS;
}

int nvmlDeviceGetName(void *handle, char *name, unsigned int length) {
    snprintf(name, length, "Stand-in %d", (int)((char *)handle - handles));
    return SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned int *count, process_t *processes) {
    figures_t now = read_figures();
    int device = (int)((char *)handle - handles), state = state_of(&now, handle);
    unsigned int room = *count, found = 0;
    if (state != SUCCESS) return state;
    for (int each = 0; each < now.processes; each++) {
        if (now.device_of[each] != device) continue;
        if (processes && found < room) processes[found] = now.process[each];
        found++;
    }
    *count = found;
    return found == 0 || (processes && found <= room) ? SUCCESS : INSUFFICIENT_SIZE;
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(void *handle, unsigned int *count, process_t *processes) {
    (void)handle; (void)processes;
    *count = 0;
    return SUCCESS;
}
