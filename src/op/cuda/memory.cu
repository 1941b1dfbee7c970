/* memory.cu - a device's memory: given, zeroed, filled, copied and taken back.
 *
 * Owns the stream of memory and the way of bytes to the host, back, and between devices. Memory comes from
 * the device's pool. What a pass uses is given back after its end, which has waited for it, so no order
 * between the two streams is needed but one: a pass begins after what was asked here before.
 */
#include <string.h>

#include "op/cuda/device.cuh"

/* Begins and ends a call on the stream of memory. */
static cudaError_t take_memory_stream(ct_device *device)
{
    pthread_mutex_lock(&device->memory_lock);
    device->memory_used = true;
    return cudaSetDevice(device->index);
}

static void leave_memory_stream(ct_device *device)
{
    pthread_mutex_unlock(&device->memory_lock);
}

/* Hands what failed on the stream of memory to the pass, or the wait, of the caller; its pass comes after
 * what was asked there before. The caller holds pass_lock and records nothing. */
cudaError_t order_after_memory(ct_device *device)
{
    cudaError_t e = cudaSuccess;
    pthread_mutex_lock(&device->memory_lock);
    if (device->memory_used) {
        e = cudaEventRecord(device->memory_event, device->memory_stream);
        if (e == cudaSuccess) e = cudaStreamWaitEvent(device->stream, device->memory_event, 0);
        device->memory_used = false;
    }
    note(device, device->memory_failed, device->memory_failed_at);
    device->memory_failed = cudaSuccess;
    pthread_mutex_unlock(&device->memory_lock);
    return e;
}

void *memory_alloc(ct_device *device, size_t bytes)
{
    void *memory = NULL;
    if (bytes == 0) bytes = 1;
    take_memory_stream(device);
    if (cudaMallocAsync(&memory, bytes, device->memory_stream) != cudaSuccess) {
        cudaGetLastError();
        memory = NULL;
    } else {
        note_memory(device, cudaMemsetAsync(memory, 0, bytes, device->memory_stream),
                    "zeroing memory");
    }
    leave_memory_stream(device);
    return memory;
}

void memory_free(ct_device *device, void *memory)
{
    if (!memory) return;
    take_memory_stream(device);
    note_memory(device, cudaFreeAsync(memory, device->memory_stream), "giving memory back");
    leave_memory_stream(device);
}

/* Large transfers go through two pinned buffers, one filled while the other is on its way. */
ct_status memory_write(ct_device *device, void *to, const void *from, size_t bytes, ct_err *err)
{
    cudaError_t e = take_memory_stream(device);
    for (size_t done = 0, i = 0; done < bytes && e == cudaSuccess; i ^= 1) {
        size_t part = bytes - done < STAGING ? bytes - done : STAGING;
        e = cudaEventSynchronize(device->staged[i]); /* its last transfer */
        if (e != cudaSuccess) break;
        const int64_t pieces = (int64_t)((part + (1 << 20) - 1) >> 20);
        const char *source = (const char *)from + done;
        char *buffer = device->staging[i];
#pragma omp parallel for schedule(static) if (pieces > 1)
        for (int64_t p = 0; p < pieces; p++) {
            size_t begin = (size_t)p << 20, size = part - begin;
            memcpy(buffer + begin, source + begin, size < (1 << 20) ? size : (1 << 20));
        }
        e = cudaMemcpyAsync((char *)to + done, buffer, part, cudaMemcpyHostToDevice,
                            device->memory_stream);
        if (e == cudaSuccess) e = cudaEventRecord(device->staged[i], device->memory_stream);
        done += part;
    }
    leave_memory_stream(device);
    return e == cudaSuccess ? CT_OK : fail_cuda(err, e, "copying to the device");
}

ct_status memory_read(ct_device *device, void *to, const void *from, size_t bytes, ct_err *err)
{
    pthread_mutex_lock(&device->pass_lock);
    cudaError_t e = cudaSetDevice(device->index);
    if (e == cudaSuccess) e = cudaStreamSynchronize(device->stream);
    pthread_mutex_lock(&device->memory_lock);
    for (size_t done = 0; done < bytes && e == cudaSuccess;) {
        size_t part = bytes - done < STAGING ? bytes - done : STAGING;
        e = cudaEventSynchronize(device->staged[0]);
        if (e == cudaSuccess)
            e = cudaMemcpyAsync(device->staging[0], (const char *)from + done, part,
                                cudaMemcpyDeviceToHost, device->memory_stream);
        if (e == cudaSuccess) e = cudaStreamSynchronize(device->memory_stream);
        if (e == cudaSuccess) memcpy((char *)to + done, device->staging[0], part);
        done += part;
    }
    pthread_mutex_unlock(&device->memory_lock);
    pthread_mutex_unlock(&device->pass_lock);
    return e == cudaSuccess ? CT_OK : fail_cuda(err, e, "copying from the device");
}

void memory_copy(ct_device *device, void *to, const void *from, size_t bytes)
{
    take_memory_stream(device);
    note_memory(device,
                cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, device->memory_stream),
                "copying on the device");
    leave_memory_stream(device);
}

ct_status memory_fill_random(ct_device *device, void *to, const ct_random_fill *what, ct_err *err)
{
    take_memory_stream(device);
    ct_status st = cuda_fill_random(device, to, what, err);
    leave_memory_stream(device);
    return st;
}

/* Lets each of the two read the other's pool directly, where the machine can; elsewhere copies go through
 * the host. Asked once. The caller holds memory_lock. */
static void meet_peer(ct_device *device, int peer)
{
    if (device->index == peer || peer >= 64 || device->peers >> peer & 1) return;
    device->peers |= (uint64_t)1 << peer;
    const int pairs[2][2] = {{device->index, peer}, {peer, device->index}}; /* who, of whose */
    for (int i = 0; i < 2; i++) {
        int can = 0;
        cudaMemPool_t pool;
        cudaMemAccessDesc access = {};
        access.location.type = cudaMemLocationTypeDevice;
        access.location.id = pairs[i][0];
        access.flags = cudaMemAccessFlagsProtReadWrite;
        if (cudaDeviceCanAccessPeer(&can, pairs[i][0], pairs[i][1]) == cudaSuccess && can &&
            cudaDeviceGetDefaultMemPool(&pool, pairs[i][1]) == cudaSuccess)
            cudaMemPoolSetAccess(pool, &access, 1);
    }
    cudaGetLastError(); /* without it works too */
}

/* On the destination's stream of memory. What wrote `from` is done: a pass has ended, and the source's
 * stream of memory is waited for. */
ct_status memory_transfer(ct_device *from_device, ct_device *to_device, void *to, const void *from,
                          size_t bytes, ct_err *err)
{
    cudaStream_t stream = to_device->memory_stream;
    cudaError_t e = cudaSetDevice(from_device->index);
    if (e == cudaSuccess) e = cudaStreamSynchronize(from_device->memory_stream);
    cudaError_t taken = take_memory_stream(to_device);
    if (e == cudaSuccess) e = taken;
    meet_peer(to_device, from_device->index);
    if (e == cudaSuccess)
        e = from_device->index == to_device->index
                ? cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream)
                : cudaMemcpyPeerAsync(to, to_device->index, from, from_device->index, bytes,
                                      stream);
    if (e == cudaSuccess) e = cudaStreamSynchronize(stream);
    leave_memory_stream(to_device);
    return e == cudaSuccess ? CT_OK : fail_cuda(err, e, "copying between devices");
}

/* What the driver has, and what the pool holds for later. Asks no stream. */
int64_t memory_free_bytes(const ct_device *device)
{
    size_t free_now = 0, total = 0;
    uint64_t reserved = 0, used = 0;
    cudaMemPool_t pool;
    cudaSetDevice(device->index);
    if (cudaMemGetInfo(&free_now, &total) != cudaSuccess) return 0;
    if (cudaDeviceGetDefaultMemPool(&pool, device->index) == cudaSuccess) {
        cudaMemPoolGetAttribute(pool, cudaMemPoolAttrReservedMemCurrent, &reserved);
        cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &used);
    }
    return (int64_t)(free_now + (reserved - used));
}

ct_status memory_sync(ct_device *device, ct_err *err)
{
    pthread_mutex_lock(&device->pass_lock);
    cudaError_t e = cudaSetDevice(device->index);
    if (e == cudaSuccess) e = order_after_memory(device);
    if (e == cudaSuccess) e = cudaStreamSynchronize(device->stream);
    const char *where = "waiting for the device";
    if (device->failed != cudaSuccess) {
        e = device->failed;
        where = device->failed_at;
        device->failed = cudaSuccess;
    }
    pthread_mutex_unlock(&device->pass_lock);
    return e == cudaSuccess ? CT_OK : fail_cuda(err, e, where);
}
