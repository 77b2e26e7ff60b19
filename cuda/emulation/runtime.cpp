/* SPDX-License-Identifier: Apache-2.0 */
/* runtime.cpp - replaces the CUDA runtime: device memory that the host cannot access, streams that
 * run late.
 *
 * Device memory is an arena that is readable only while device work runs; a block ends at a guard
 * page, begins as NaN, and its address is never used again. Streams are queues: nothing runs before
 * a wait or a query, and the seed decides which stream runs next, so a missing event shows as NaN
 * or stale data. A copy reads its host memory when it runs, not when it is issued; one to host
 * memory that is not pinned waits until it has run. */
#include "cuda/emulation/emu.h"

#include <algorithm>
#include <deque>
#include <execinfo.h>
#include <map>
#include <memory>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

extern "C" {
void __asan_poison_memory_region(const volatile void *, size_t) __attribute__((weak));
void __asan_unpoison_memory_region(const volatile void *, size_t) __attribute__((weak));
}

namespace
{

struct block {
    size_t bytes;
    bool live;
};

struct operation {
    uint64_t number; /* order of the calls */
    std::function<bool()> run;
};

const size_t ARENA = 64ull << 30, PAGE = 4096, SHARED_MOST = 227 << 10, FILLED = 4 << 20;
std::map<uintptr_t, block> blocks; /* of the device */
std::map<uintptr_t, size_t> pinned;
char *arena;
size_t arena_used, live_bytes;
bool device_works;
uint64_t operations;
cudaError_t last_error = cudaSuccess;

const block *find(const void *p)
{
    auto it = blocks.upper_bound((uintptr_t)p);

    if (it == blocks.begin())
        return nullptr;
    --it;
    return (uintptr_t)p < it->first + std::max<size_t>(it->second.bytes, 1) ? &it->second : nullptr;
}

bool is_pinned(const void *p)
{
    auto it = pinned.upper_bound((uintptr_t)p);

    if (it == pinned.begin())
        return false;
    --it;
    return (uintptr_t)p < it->first + it->second;
}

void on_fault(int, siginfo_t *info, void *)
{
    char *p = (char *)info->si_addr;

    if (arena && p >= arena && p < arena + ARENA) {
        const block *b = find(p);
        void *frames[24];

        fprintf(stderr, "hy3_emu: %s code touched the device address %p (%s)\n",
                device_works ? "DEVICE" : "HOST", (void *)p,
                !b        ? "between allocations"
                : b->live ? "a live cudaMalloc block"
                          : "a freed cudaMalloc block");
        backtrace_symbols_fd(frames, backtrace(frames, 24), STDERR_FILENO);
    }
    signal(SIGSEGV, SIG_DFL);
}

void init()
{
    struct sigaction action = {};
    const char *seed = getenv("HY3_EMU_SEED");

    if (arena)
        return;
    arena =
        /* cppcheck-suppress invalidFunctionArg ; MAP_ANONYMOUS asks for -1 */
        (char *)mmap(nullptr, ARENA, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGSEGV, &action, nullptr);
    if (seed)
        hy3_emu_seed(atoi(seed));
}

void let_device_work(bool on)
{
    if (on == device_works)
        return;
    device_works = on;
    for (auto &b : blocks)
        if (b.second.live)
            mprotect((void *)(b.first / PAGE * PAGE),
                     (b.first % PAGE + b.second.bytes + PAGE - 1) / PAGE * PAGE,
                     on ? PROT_READ | PROT_WRITE : PROT_NONE);
}

} // namespace

struct CUstream_st {
    std::deque<operation> queue;
    bool waits_for_legacy; /* not created with cudaStreamNonBlocking */
};

struct CUevent_st {
    uint64_t recorded = 0, done = 0;
};

namespace
{

CUstream_st legacy = {{}, true};
std::vector<CUstream_st *> streams = {&legacy};

CUstream_st *stream_of(cudaStream_t stream)
{
    return stream ? stream : &legacy;
}

/* The default stream waits for all blocking ones, and they for it. */
bool may_run(const CUstream_st *s)
{
    uint64_t number = s->queue.front().number;

    if (!s->waits_for_legacy)
        return true;
    if (s != &legacy)
        return legacy.queue.empty() || legacy.queue.front().number > number;
    for (const CUstream_st *other : streams)
        if (other->waits_for_legacy && !other->queue.empty() &&
            other->queue.front().number < number)
            return false;
    return true;
}

/* Runs one operation of some stream; false if none can run. */
bool run_one()
{
    std::vector<CUstream_st *> ready;
    int seed = hy3_emu_mode();
    static size_t turn;

    for (CUstream_st *s : streams)
        if (!s->queue.empty() && may_run(s))
            ready.push_back(s);
    if (ready.empty())
        return false;
    for (size_t tries = 0, at = seed >= 2 ? hy3_emu_random() : turn++; tries < ready.size();
         tries++, at++) {
        CUstream_st *s =
            ready[seed == 1 ? ready.size() - 1 - at % ready.size() : at % ready.size()];

        if (!s->queue.front().run())
            continue;
        s->queue.pop_front();
        return true;
    }
    return false;
}

void drain(const std::function<bool()> &until)
{
    for (long idle = 0; !until();) {
        if (run_one()) {
            idle = 0;
            continue;
        }
        sched_yield(); /* another rank may have to run first */
        if (++idle > 200000000) {
            fprintf(stderr, "hy3_emu: the streams wait for each other\n");
            abort();
        }
    }
    let_device_work(false);
}

cudaError_t give(cudaError_t error)
{
    if (error != cudaSuccess && error != cudaErrorNotReady)
        last_error = error;
    return error;
}

size_t device_bytes()
{
    const char *text = getenv("HY3_EMU_MEMORY");

    return text ? (size_t)atol(text) << 20 : ARENA;
}

} // namespace

bool hy3_emu_may_launch(const char *kernel, dim3 grid, dim3 block, size_t shared,
                        cudaStream_t stream)
{
    uint64_t threads = (uint64_t)block.x * block.y * block.z;

    if (hy3_emu_is_endless())
        hy3_emu_enqueue_waiting(stream, [] { return false; });
    if (hy3_emu_fails(kernel))
        last_error = cudaErrorLaunchOutOfResources;
    else if (!threads || threads > 1024 || !grid.x || !grid.y || !grid.z || grid.x > 0x7fffffff ||
             grid.y > 65535 || grid.z > 65535 || shared > SHARED_MOST)
        last_error = cudaErrorInvalidConfiguration;
    else
        return true;
    return false;
}

void hy3_emu_check_pointer(const char *what, int argument, const void *pointer)
{
    const block *b = pointer ? find(pointer) : nullptr;

    if (!pointer || (b && b->live) || is_pinned(pointer))
        return;
    fprintf(stderr, "hy3_emu: %s: argument %d (%p) is %s\n", what, argument, pointer,
            b ? "a freed device pointer" : "not a device pointer");
    abort();
}

void hy3_emu_enqueue_waiting(cudaStream_t stream, std::function<bool()> run)
{
    stream_of(stream)->queue.push_back({operations++, std::move(run)});
}

void hy3_emu_enqueue(cudaStream_t stream, std::function<void()> run)
{
    hy3_emu_enqueue_waiting(stream, [run] {
        let_device_work(true);
        run();
        return true;
    });
}

void hy3_emu_touch_device()
{
    let_device_work(true);
}

void hy3_emu_progress()
{
    for (int i = 0; i < 8 && run_one(); i++) {}
    let_device_work(false);
}

#define API extern "C" cudaError_t CUDARTAPI
/* The first statement of an API function. */
#define MAY_FAIL(error)              \
    do {                             \
        if (hy3_emu_fails(__func__)) \
            return give(error);      \
    } while (0)

/* The same for a call that reports an error of the device, on which nothing runs afterwards. */
#define MAY_DIE                                  \
    do {                                         \
        if (hy3_emu_fails(__func__)) {           \
            for (CUstream_st * each : streams)   \
                each->queue.clear();             \
            return give(cudaErrorLaunchFailure); \
        }                                        \
    } while (0)

API cudaGetDeviceCount(int *count)
{
    init();
    MAY_FAIL(cudaErrorNoDevice);
    *count = 1;
    return cudaSuccess;
}

API cudaSetDevice(int)
{
    MAY_FAIL(cudaErrorInvalidDevice);
    return cudaSuccess;
}

API cudaGetDeviceProperties(struct cudaDeviceProp *out, int)
{
    MAY_FAIL(cudaErrorInvalidDevice);
    const char *name = getenv("HY3_EMU_NAME"), *uuid = getenv("HY3_EMU_UUID"),
               *bus = getenv("HY3_EMU_BUS");
    int number = uuid ? atoi(uuid) : getpid();

    *out = {};
    snprintf(out->name, sizeof out->name, "%s", name ? name : "an emulated GPU");
    memcpy(&out->uuid, &number, sizeof number);
    out->pciBusID = bus ? atoi(bus) : number;
    return cudaSuccess;
}

API cudaGetDevice(int *device)
{
    MAY_FAIL(cudaErrorInvalidDevice);
    *device = 0;
    return cudaSuccess;
}

API cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int)
{
    const char *chosen = getenv("HY3_EMU_CAPABILITY");

    MAY_FAIL(cudaErrorInvalidDevice);
    if (attribute == cudaDevAttrMpsEnabled) {
        *value = getenv("HY3_EMU_MPS") != nullptr;
        return cudaSuccess;
    }
    if (attribute != cudaDevAttrComputeCapabilityMajor)
        return cudaErrorInvalidValue;
    *value = chosen ? atoi(chosen) : 9;
    return cudaSuccess;
}

API cudaMemGetInfo(size_t *free_bytes, size_t *total)
{
    MAY_FAIL(cudaErrorUnknown);
    *total = device_bytes();
    *free_bytes = *total > live_bytes ? *total - live_bytes : 0;
    return cudaSuccess;
}

API cudaMalloc(void **out, size_t bytes)
{
    size_t room = (bytes + PAGE - 1) / PAGE * PAGE;
    /* as close to the guard page as 256-byte alignment allows */
    size_t at = (room - bytes) & ~(size_t)255;

    init();
    MAY_FAIL(cudaErrorMemoryAllocation);
    if (live_bytes + bytes > device_bytes() || arena_used + room + PAGE > ARENA)
        return give(cudaErrorMemoryAllocation);
    *out = arena + arena_used + at;
    mprotect(arena + arena_used, room, PROT_READ | PROT_WRITE);
    /* NaN in bf16, fp32 and fp64. Not all of a large workspace: each page in use slows every change
     * of protection. */
    memset(arena + arena_used, 0xff, room < FILLED ? room : FILLED);
    if (__asan_poison_memory_region)
        __asan_poison_memory_region((char *)*out + bytes, room - at - bytes);
    if (!device_works)
        mprotect(arena + arena_used, room, PROT_NONE);
    blocks[(uintptr_t)*out] = {bytes, true};
    arena_used += room + PAGE;
    live_bytes += bytes;
    return cudaSuccess;
}

API cudaDeviceSynchronize()
{
    MAY_DIE;
    drain([] {
        return std::all_of(streams.begin(), streams.end(),
                           [](CUstream_st *s) { return s->queue.empty(); });
    });
    return cudaSuccess;
}

API cudaFree(void *p)
{
    auto it = blocks.find((uintptr_t)p);
    uintptr_t first = (uintptr_t)p / PAGE * PAGE;

    if (!p)
        return cudaSuccess;
    MAY_FAIL(cudaErrorInvalidValue);
    if (it == blocks.end() || !it->second.live)
        return give(cudaErrorInvalidValue);
    cudaDeviceSynchronize();
    it->second.live = false; /* the address is never used again, so a late use is caught */
    live_bytes -= it->second.bytes;
    size_t room = ((uintptr_t)p % PAGE + it->second.bytes + PAGE - 1) / PAGE * PAGE;
    mprotect((void *)first, room, PROT_NONE);
    madvise((void *)first, room, MADV_DONTNEED);
    return cudaSuccess;
}

API cudaMallocHost(void **out, size_t bytes)
{
    MAY_FAIL(cudaErrorMemoryAllocation);
    if (posix_memalign(out, 4096, bytes ? bytes : 1) != 0)
        return give(cudaErrorMemoryAllocation);
    memset(*out, 0xff, bytes);
    pinned[(uintptr_t)*out] = bytes;
    return cudaSuccess;
}

API cudaFreeHost(void *p)
{
    MAY_FAIL(cudaErrorInvalidValue);
    cudaDeviceSynchronize();
    pinned.erase((uintptr_t)p);
    free(p);
    return cudaSuccess;
}

API cudaStreamCreateWithFlags(cudaStream_t *out, unsigned flags)
{
    MAY_FAIL(cudaErrorMemoryAllocation);
    *out = new CUstream_st{{}, !(flags & cudaStreamNonBlocking)};
    streams.push_back(*out);
    return cudaSuccess;
}

API cudaDeviceGetStreamPriorityRange(int *least, int *greatest)
{
    MAY_FAIL(cudaErrorInvalidValue);
    *least = 0;
    *greatest = -5;
    return cudaSuccess;
}

API cudaStreamCreateWithPriority(cudaStream_t *out, unsigned flags, int)
{
    return cudaStreamCreateWithFlags(out, flags);
}

API cudaStreamSynchronize(cudaStream_t stream)
{
    MAY_DIE;
    drain([stream] { return stream_of(stream)->queue.empty(); });
    return cudaSuccess;
}

API cudaStreamQuery(cudaStream_t stream)
{
    MAY_DIE;
    hy3_emu_progress();
    return stream_of(stream)->queue.empty() ? cudaSuccess : cudaErrorNotReady;
}

API cudaStreamDestroy(cudaStream_t stream)
{
    MAY_FAIL(cudaErrorInvalidResourceHandle);
    drain([stream] { return stream->queue.empty(); });
    streams.erase(std::find(streams.begin(), streams.end(), stream));
    delete stream;
    return cudaSuccess;
}

API cudaEventCreateWithFlags(cudaEvent_t *out, unsigned)
{
    MAY_FAIL(cudaErrorMemoryAllocation);
    *out = new CUevent_st;
    return cudaSuccess;
}

API cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    uint64_t ticket = ++event->recorded;

    MAY_FAIL(cudaErrorInvalidResourceHandle);
    hy3_emu_enqueue(stream, [=] { event->done = std::max(event->done, ticket); });
    return cudaSuccess;
}

API cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned)
{
    uint64_t ticket = event->recorded;

    MAY_FAIL(cudaErrorInvalidResourceHandle);
    hy3_emu_enqueue_waiting(stream, [=] { return event->done >= ticket; });
    return cudaSuccess;
}

API cudaEventQuery(cudaEvent_t event)
{
    uint64_t ticket = event->recorded;

    MAY_DIE;
    hy3_emu_progress();
    return event->done >= ticket ? cudaSuccess : cudaErrorNotReady;
}

API cudaEventDestroy(cudaEvent_t event)
{
    MAY_FAIL(cudaErrorInvalidResourceHandle);
    cudaDeviceSynchronize();
    delete event;
    return cudaSuccess;
}

API cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind,
                    cudaStream_t stream)
{
    const block *d = find(to), *s = find(from);
    std::shared_ptr<bool> is_done;

    MAY_FAIL(cudaErrorInvalidValue);
    if (kind != cudaMemcpyDefault &&
        ((kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice) != !!d ||
         (kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice) != !!s))
        return give(cudaErrorInvalidValue);
    if (bytes > 0 && !!d != !!s && !is_pinned(d ? from : to)) {
        hy3_emu_may_hang("pageable");
        is_done = std::make_shared<bool>(false);
    }
    hy3_emu_enqueue(stream, [=] {
        memcpy(to, from, bytes);
        if (is_done)
            *is_done = true;
    });
    if (is_done && s) /* as the driver: it returns when memory that is not pinned has the bytes */
        drain([=] { return *is_done; });
    return cudaSuccess;
}

API cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream)
{
    MAY_FAIL(cudaErrorInvalidValue);
    hy3_emu_check_pointer("cudaMemsetAsync", 0, to);
    hy3_emu_enqueue(stream, [=] { memset(to, value, bytes); });
    return cudaSuccess;
}

API cudaFuncSetAttribute(const void *, enum cudaFuncAttribute, int)
{
    MAY_FAIL(cudaErrorInvalidValue);
    return cudaSuccess;
}

API cudaGetLastError()
{
    cudaError_t error = last_error;

    last_error = cudaSuccess;
    return error;
}

extern "C" const char *CUDARTAPI cudaGetErrorString(cudaError_t error)
{
    switch (error) {
    case cudaSuccess:
        return "no error";
    case cudaErrorMemoryAllocation:
        return "out of memory";
    case cudaErrorInvalidValue:
        return "invalid argument";
    case cudaErrorInvalidConfiguration:
        return "invalid configuration argument";
    case cudaErrorNoDevice:
        return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice:
        return "invalid device ordinal";
    case cudaErrorInvalidResourceHandle:
        return "invalid resource handle";
    case cudaErrorLaunchFailure:
        return "unspecified launch failure";
    case cudaErrorLaunchOutOfResources:
        return "too many resources requested for launch";
    default:
        return "unknown error";
    }
}
