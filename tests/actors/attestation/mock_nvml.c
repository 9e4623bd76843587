/* An NVML and a CUDA driver that claim whatever they were compiled to claim. For tests only.
   Of two cards, the second is a twin in another slot; CUDA numbers them the other way round, as real ones may. */

#include <string.h>
#include <stdlib.h>

#ifndef UUID
#define UUID "GPU-0a1b2c3d-0000-4000-8000-000000000001"
#endif
#ifndef NAME
#define NAME "NVIDIA H200"
#endif
#ifndef DEVICE_ID
#define DEVICE_ID 0x233510deu
#endif
#ifndef BUS_ID
#define BUS_ID "00000000:17:00.0"
#endif
#ifndef CUDA_BUS_ID
#define CUDA_BUS_ID "0000:17:00.0"
#endif
#ifndef CARDS
#define CARDS 1
#endif
#define SECOND_UUID "GPU-0a1b2c3d-0000-4000-8000-000000000002"
#define SECOND_BUS_ID "0000:65:00.0"
#ifndef DRIVER
#define DRIVER "570.86.15"
#endif
#ifndef MEMORY_MIB
#define MEMORY_MIB 143771ull
#endif
#ifndef HANG
#define HANG 0
#endif
#ifndef CRASH
#define CRASH 0
#endif

struct pci { char legacy[16]; unsigned domain, bus, device, ids, subsystem; char bus_id[32]; };
struct memory { unsigned long long total, free, used; };

static int is_second(void *handle) { return (size_t)handle == 2; }
static int card(int device) { return CARDS - 1 - device; }
static int text(char *to, unsigned length, const char *from) { strncpy(to, from, length); return 0; }

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    if (CRASH) abort();
    while (HANG) ;
    return 0;
}
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { (void)code; return "mock"; }
int nvmlSystemGetDriverVersion(char *to, unsigned length) { return text(to, length, DRIVER); }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = CARDS; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) { *handle = (void *)(size_t)(index + 1); return 0; }
int nvmlDeviceGetName(void *h, char *to, unsigned length) { (void)h; return text(to, length, NAME); }
int nvmlDeviceGetUUID(void *h, char *to, unsigned length) { return text(to, length, is_second(h) ? SECOND_UUID : UUID); }
int nvmlDeviceGetMemoryInfo(void *h, struct memory *m) { (void)h; m->total = MEMORY_MIB << 20; m->free = m->total; m->used = 0; return 0; }
int nvmlDeviceGetPciInfo_v3(void *h, struct pci *p) {
    memset(p, 0, sizeof *p);
    p->ids = DEVICE_ID;
    p->subsystem = 0x18be10deu;
    strcpy(p->bus_id, is_second(h) ? "0000" SECOND_BUS_ID : BUS_ID);
    return 0;
}
int nvmlDeviceGetCudaComputeCapability(void *h, int *major, int *minor) { (void)h; *major = 9; *minor = 0; return 0; }
int nvmlDeviceGetArchitecture(void *h, unsigned *a) { (void)h; *a = 9; return 0; }
int nvmlDeviceGetNumGpuCores(void *h, unsigned *cores) { (void)h; *cores = 16896; return 0; }
int nvmlDeviceGetTotalEnergyConsumption(void *h, unsigned long long *e) { static unsigned long long mj = 1000000; (void)h; *e = mj; mj += 1000; return 0; }
int nvmlDeviceGetPowerUsage(void *h, unsigned *mw) { (void)h; *mw = 120000; return 0; }

int cuInit(unsigned flags) { (void)flags; return 0; }
int cuDeviceGetCount(int *count) { *count = CARDS; return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return 0; }
int cuDeviceGetName(char *to, int length, int d) { (void)d; return text(to, (unsigned)length, NAME); }
int cuDeviceGetPCIBusId(char *to, int length, int d) { return text(to, (unsigned)length, card(d) ? SECOND_BUS_ID : CUDA_BUS_ID); }
int cuDeviceTotalMem_v2(size_t *bytes, int d) { (void)d; *bytes = (MEMORY_MIB - 600) << 20; return 0; }
int cuDeviceGetUuid_v2(unsigned char *uuid, int d) {
    static const unsigned char bytes[16] = {0x0a, 0x1b, 0x2c, 0x3d, 0, 0, 0x40, 0, 0x80, 0, 0, 0, 0, 0, 0, 1};
    memcpy(uuid, bytes, 16);
    uuid[15] += card(d);
    return 0;
}
int cuDeviceGetAttribute(int *value, int attribute, int d) {
    (void)d;
    switch (attribute) {
        case 13: *value = 1980000; return 0;
        case 16: *value = 132; return 0;
        case 75: *value = 9; return 0;
        case 76: *value = 0; return 0;
    }
    return 1;
}
