/* SPDX-License-Identifier: Apache-2.0 */
/* indices.c - in a developer build a kernel that is given an index out of range ends the program
 * with one line that names kernel, index and range; on the CPU and on the emulated GPU. */
#include "backend/backend.h"
#include "backend/gpu.h"
#include "backend/mirror.h"
#include "support/test.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

enum { N = 4, WIDTH = 8, BYTES = 4096 };

/* Memory for every argument of a call; all zeros. */
static struct {
    int32_t ids[2 * N], places[N]; /* places: all right */
    float x[BYTES], y[BYTES], z[BYTES];
    int64_t starts[N + 1];
} memory;

static void embedding_forward(const struct hy3_kernels *k)
{
    struct hy3_embedding a = {.T = N, .H = WIDTH, .V = N, .ids = memory.ids, .W = memory.x};

    a.y = memory.y;
    (void)k->embedding_forward(NULL, &a);
}

static void embedding_backward(const struct hy3_kernels *k)
{
    struct hy3_embedding a = {.T = N, .H = WIDTH, .V = N, .ids = memory.ids, .dy = memory.x};

    a.dW = memory.y;
    (void)k->embedding_backward(NULL, &a);
}

static struct hy3_loss loss(void)
{
    return (struct hy3_loss){.N = N,
                             .V = WIDTH,
                             .logits = memory.x,
                             .targets = memory.ids,
                             .loss = memory.y,
                             .lse = memory.y + N,
                             .scale = 1,
                             .dlogits = memory.z};
}

static void loss_forward(const struct hy3_kernels *k)
{
    struct hy3_loss a = loss();

    (void)k->loss_forward(NULL, &a);
}

static void loss_backward(const struct hy3_kernels *k)
{
    struct hy3_loss a = loss();

    (void)k->loss_backward(NULL, &a);
}

static void rope_forward(const struct hy3_kernels *k)
{
    struct hy3_rope a = {.T = N, .heads = 1, .D = WIDTH, .theta = 10, .positions = memory.ids};

    a.x = a.w = memory.x;
    a.y = memory.y;
    a.r = memory.z;
    (void)k->rope_forward(NULL, &a);
}

static void permute_forward(const struct hy3_kernels *k)
{
    struct hy3_permute a = {.T = N, .R = N, .H = WIDTH, .k = 1, .token = memory.ids};

    a.x = memory.x;
    a.y = memory.y;
    (void)k->permute_forward(NULL, &a);
}

static void permute_backward(const struct hy3_kernels *k)
{
    struct hy3_permute a = {.T = N, .R = N, .H = WIDTH, .k = 1, .position = memory.ids};

    a.dy = memory.x;
    a.dx = memory.y;
    (void)k->permute_backward(NULL, &a);
}

static struct hy3_unpermute unpermute(void)
{
    return (struct hy3_unpermute){.T = N,
                                  .R = N,
                                  .H = WIDTH,
                                  .k = 1,
                                  .position = memory.ids,
                                  .weights = memory.z,
                                  .y = memory.x,
                                  .out = memory.y,
                                  .dout = memory.x + BYTES / 2,
                                  .dy = memory.y};
}

static void unpermute_forward(const struct hy3_kernels *k)
{
    struct hy3_unpermute a = unpermute();

    (void)k->unpermute_forward(NULL, &a);
}

static void unpermute_backward(const struct hy3_kernels *k)
{
    struct hy3_unpermute a = unpermute();

    (void)k->unpermute_backward(NULL, &a);
}

static struct hy3_router router(void)
{
    return (struct hy3_router){.T = N,
                               .E = N,
                               .k = 1,
                               .scaling = 1,
                               .replay = true,
                               .logits = memory.x,
                               .bias = memory.x,
                               .ids = memory.ids,
                               .weights = memory.y,
                               .R = N,
                               .place = memory.places,
                               .products = memory.x,
                               .dlogits = memory.z};
}

static void router_forward(const struct hy3_kernels *k)
{
    struct hy3_router a = router();

    (void)k->router_forward(NULL, &a);
}

static void router_backward(const struct hy3_kernels *k)
{
    struct hy3_router a = router();

    (void)k->router_backward(NULL, &a);
}

static void row_dot(const struct hy3_kernels *k)
{
    struct hy3_row_dot a = {.N = N,
                            .C = WIDTH,
                            .a = memory.x,
                            .b = memory.x,
                            .to = memory.ids,
                            .places = N,
                            .y = memory.z};

    (void)k->row_dot(NULL, &a);
}

static void route_index(const struct hy3_kernels *k)
{
    struct hy3_route_index a = {.T = N, .G = N, .k = 1, .width = 1, .stride = 1, .ids = memory.ids};

    a.position = (int32_t *)memory.x;
    a.token = (int32_t *)memory.y;
    a.starts = memory.starts;
    (void)k->route_index(NULL, &a);
}

/* clang-format off */
static const struct {
    void (*call)(const struct hy3_kernels *);
    int32_t bad; /* as the third index */
    const char *line;
} rows[] = {
    {embedding_forward,  N,     "kernel embedding: ids[2] is 4, it must be 0 to 3"},
    {embedding_forward,  -1,    "kernel embedding: ids[2] is -1, it must be 0 to 3"},
    {embedding_backward, N,     "kernel embedding: ids[2] is 4, it must be 0 to 3"},
    {loss_forward,       WIDTH, "kernel loss: targets[2] is 8, it must be -1 to 7"},
    {loss_backward,      WIDTH, "kernel loss: targets[2] is 8, it must be -1 to 7"},
    {rope_forward,       -1,    "kernel rope: positions[2] is -1, it must be 0 to 2147483646"},
    {permute_forward,    N,     "kernel permute: token[2] is 4, it must be 0 to 3"},
    {permute_backward,   N,     "kernel permute: position[2] is 4, it must be -1 to 3"},
    {unpermute_forward,  N,     "kernel unpermute: position[2] is 4, it must be -1 to 3"},
    {unpermute_backward, N,     "kernel unpermute: position[2] is 4, it must be -1 to 3"},
    {router_forward,     N,     "kernel router: ids[2] is 4, it must be 0 to 3"},
    {router_backward,    N,     "kernel router: ids[2] is 4, it must be 0 to 3"},
    {row_dot,            -1,    "kernel row_dot: to[2] is -1, it must be 0 to 3"},
    {route_index,        N,     "kernel route_index: ids[2] is 4, it must be 0 to 3"},
};

/* clang-format on */

/* Runs the call of a row in a child; what it wrote is in `said`. */
static int die_of(size_t row, const struct hy3_kernels *kernels, char *said, size_t size)
{
    int ends[2], end = 0;
    size_t used = 0;
    ssize_t got;
    pid_t child;

    assert_int_equal(pipe(ends), 0);
    if ((child = fork()) == 0) {
        dup2(ends[1], STDERR_FILENO);
        signal(SIGABRT, SIG_DFL);
        rows[row].call(kernels);
        _exit(0);
    }
    close(ends[1]);
    while (used + 1 < size && (got = read(ends[0], said + used, size - used - 1)) > 0)
        used += (size_t)got;
    said[used] = '\0';
    close(ends[0]);
    assert_int_equal(waitpid(child, &end, 0), child);
    return end;
}

static void all_die(const struct hy3_kernels *kernels)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char said[4096], line[256];
        int end;

        memory.ids[2] = rows[i].bad;
        end = die_of(i, kernels, said, sizeof said);
        snprintf(line, sizeof line, "hy3: internal error: %s\n", rows[i].line);
        if (!WIFSIGNALED(end) || WTERMSIG(end) != SIGABRT || strcmp(said, line) != 0)
            fail_msg("'%s': the child ended with %d and said '%s'", rows[i].line, end, said);
    }
    memory.ids[2] = 0;
}

static void the_cpu_refuses_indices_out_of_range(void **state)
{
#ifdef HY3_DEVELOPER
    all_die(&hy3_cpu_backend("best")->kernels);
#else
    print_message("indices are checked in developer builds only (configure --enable-developer)\n");
    skip();
#endif
}

static void the_emulated_gpu_refuses_indices_out_of_range(void **state)
{
    const struct hy3_device *device = NULL;
    const struct hy3_kernels *kernels = NULL;

    if (hy3_test_gpu(&device, &kernels) != HY3_OK) {
        print_message("%s\n", hy3_error_text());
        skip();
    }
#ifdef HY3_DEVELOPER
    hy3_mirror_add(&memory, sizeof memory);
    all_die(hy3_mirror(device, kernels));
    hy3_mirror_forget();
#else
    print_message("indices are checked in developer builds only (configure --enable-developer)\n");
    skip();
#endif
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_cpu_refuses_indices_out_of_range),
        cmocka_unit_test(the_emulated_gpu_refuses_indices_out_of_range),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
