/* Open-loop load over HTTP/1.1: requests are due at times that no answer changes.
 *
 *     openloop ADDRESS PORT REQUEST RATE SECONDS WARMUP CONNECTIONS poisson|constant SEED
 *
 * REQUEST is a file with the bytes of one request, head and body. A request's latency counts from when it was
 * due to the last byte of its answer, so a wait for a free connection counts, and so does every request that
 * was due while the server stood still (no coordinated omission). What was due in the warm-up is sent but not
 * counted. `lateness` is the generator's own: from when a request was due, or from when a connection became
 * free if none was, to its write.
 *
 * It spins on its core instead of sleeping: a timer would wake it tens of microseconds late. One request is
 * under way on a connection, and the longest idle connection is asked next, as when many clients ask seldom;
 * the server then keeps meeting all of them, which is harder for it than a few busy ones.
 *
 * Prints one JSON object, all times in seconds.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

enum { HEAD = 8192, EVENTS = 64, STATUSES = 600, FINE = 7 };
static const double OPENING = 2.0, GIVE_UP = 5.0, REDIAL = 0.01;

/* Counts by nanoseconds: 128 buckets to each power of two, so a value is known within 0.4 %. */
struct histogram {
    uint64_t buckets[64 << FINE], total;
    double largest;
};

enum state { CLOSED, CONNECTING, IDLE, ASKED };

struct connection {
    enum state state;
    int fd, queued; /* queued: it stands in `waiting`, perhaps from before it was closed */
    double due;
    size_t written, have;
    int status;
    long left; /* bytes of the body still to come; -1 until the head is there */
    char head[HEAD + 1];
};

static struct sockaddr_in server;
static char *request;
static size_t request_size;
static double rate, warm, until; /* counted are the requests due in [warm, until) */
static int poisson, poll_fd;
static uint64_t seed;

static struct connection *connections, **waiting; /* waiting: a ring of the idle, the longest idle first */
static size_t count, first, queued, idle, asked;
static double due, planned, freed, last_answer; /* freed: since when some connection has been idle */

static uint64_t sent, answered, failed, closed, garbled, unanswered, statuses[STATUSES];
static struct histogram latency, lateness;

static void die(const char *what)
{
    fprintf(stderr, "openloop: %s%s%s\n", what, errno ? ": " : "", errno ? strerror(errno) : "");
    exit(1);
}

static double now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec + 1e-9 * (double)at.tv_nsec;
}

static void record(struct histogram *into, double seconds)
{
    uint64_t value = seconds > 0 ? (uint64_t)(seconds * 1e9) : 0;
    int shift = value >> FINE ? 63 - FINE - __builtin_clzll(value) : 0;
    into->buckets[((uint64_t)shift << FINE) + (value >> shift)]++;
    into->total++;
    if (seconds > into->largest)
        into->largest = seconds;
}

static double quantile(const struct histogram *of, double share)
{
    uint64_t rank = (uint64_t)ceil(share * (double)of->total), seen = 0, index = 0;
    while (index < (64 << FINE) - 1 && (seen += of->buckets[index]) < rank)
        index++;
    int shift = index >> FINE ? (int)(index >> FINE) - 1 : 0;
    double middle = ((double)(index - ((uint64_t)shift << FINE)) + 0.5) * (double)(1ull << shift) * 1e-9;
    return fmin(middle, of->largest);
}

/* SplitMix64 (Steele, Lea and Flood 2014), in (0, 1]. */
static double uniform(void)
{
    uint64_t z = seed += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (double)(((z ^ z >> 31) >> 11) + 1) * 0x1p-53;
}

static void plan(void)
{
    planned += poisson ? -log(uniform()) : 1.0;
    due = warm + planned / rate;
}

static void watch(struct connection *c, int operation, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = c};
    if (epoll_ctl(poll_fd, operation, c->fd, &event))
        die("epoll_ctl");
}

static void dial(struct connection *c)
{
    int yes = 1;
    if ((c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0)) < 0)
        die("socket");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    if (connect(c->fd, (struct sockaddr *)&server, sizeof server) && errno != EINPROGRESS) {
        close(c->fd);
        return;
    }
    c->state = CONNECTING;
    watch(c, EPOLL_CTL_ADD, EPOLLOUT);
}

static void free_up(struct connection *c, double at)
{
    c->state = IDLE;
    if (!idle++)
        freed = at;
    if (!c->queued) {
        c->queued = 1;
        waiting[(first + queued++) % count] = c;
    }
}

/* Ends a connection; the request on it, or bytes that nobody asked for, count under `cause`. */
static void lose(struct connection *c, uint64_t *cause)
{
    if (c->state == ASKED ? c->due >= warm : cause == &garbled) {
        ++*cause;
        failed++;
    }
    asked -= c->state == ASKED;
    idle -= c->state == IDLE;
    c->state = CLOSED;
    close(c->fd);
}

static void push(struct connection *c)
{
    ssize_t took = send(c->fd, request + c->written, request_size - c->written, MSG_NOSIGNAL);
    if (took < 0 && errno != EAGAIN && errno != EINTR) {
        lose(c, &closed);
        return;
    }
    int partly = c->written > 0;
    c->written += took > 0 ? (size_t)took : 0;
    if (partly || c->written < request_size)
        watch(c, EPOLL_CTL_MOD, c->written < request_size ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

/* Sends what is due, as far as connections are free. */
static void send_due(void)
{
    double at;
    while (idle && due < until && due <= (at = now())) {
        struct connection *c = waiting[first];
        first = (first + 1) % count;
        queued--;
        c->queued = 0;
        if (c->state != IDLE)
            continue;
        c->state = ASKED;
        c->due = due;
        c->written = c->have = 0;
        c->left = -1;
        idle--;
        asked++;
        if (due >= warm) {
            sent++;
            record(&lateness, at - fmax(due, freed));
        }
        push(c);
        plan();
    }
}

/* The length of the body by the head that ends at `end`, and the status; -1 where they cannot be told. */
static long length_of(struct connection *c, const char *end)
{
    long length = -1;
    char *rest;
    if (strncmp(c->head, "HTTP/1.", 7))
        return -1;
    c->status = (int)strtol(c->head + 8, NULL, 10);
    if (c->status < 100 || c->status >= STATUSES)
        return -1;
    for (const char *line = strstr(c->head, "\r\n"); line && line < end; line = strstr(line + 2, "\r\n")) {
        if (!strncasecmp(line + 2, "transfer-encoding:", 18))
            return -1;
        if (!strncasecmp(line + 2, "content-length:", 15)) {
            length = strtol(line + 17, &rest, 10);
            if (rest == line + 17 || strncmp(rest, "\r\n", 2))
                return -1;
        }
    }
    return length;
}

static void finish(struct connection *c, double at)
{
    last_answer = at;
    if (c->due >= warm) {
        answered++;
        statuses[c->status]++;
        if (c->status == 200)
            record(&latency, at - c->due);
        else
            failed++;
    }
    asked--;
    free_up(c, at);
    if (c->written < request_size) /* answered before it was asked: what is left of it is no request */
        lose(c, &closed);
}

static void hear(struct connection *c)
{
    static char body[1 << 16];
    int in_head = c->state == ASKED && c->left < 0;
    ssize_t got = in_head ? recv(c->fd, c->head + c->have, HEAD - c->have, 0)
                          : recv(c->fd, body, sizeof body, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0 || c->state != ASKED) {
        lose(c, got > 0 ? &garbled : &closed);
        return;
    }
    if (in_head) {
        c->have += (size_t)got;
        c->head[c->have] = '\0';
        const char *end = strstr(c->head, "\r\n\r\n");
        if (!end && c->have < HEAD)
            return;
        if (!end || (c->left = length_of(c, end)) < 0) {
            lose(c, &garbled);
            return;
        }
        got = c->head + c->have - (end + 4);
    }
    if ((c->left -= got) < 0)
        lose(c, &garbled);
    else if (!c->left)
        finish(c, now());
}

static void turn(void)
{
    static double redial;
    struct epoll_event events[EVENTS];
    int ready = epoll_wait(poll_fd, events, EVENTS, 0);
    for (int number = 0; number < ready; number++) {
        struct connection *c = events[number].data.ptr;
        if (c->state == CLOSED) /* since these events were fetched, while sending */
            continue;
        if (c->state == CONNECTING) {
            int error = 0;
            socklen_t size = sizeof error;
            if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size) || error) {
                lose(c, &closed);
            } else {
                watch(c, EPOLL_CTL_MOD, EPOLLIN);
                free_up(c, now());
            }
        } else if (events[number].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
            hear(c);
        } else if (events[number].events & EPOLLOUT) {
            push(c);
        }
        send_due();
    }
    send_due();
    if (now() >= redial) {
        redial = now() + REDIAL;
        for (size_t number = 0; number < count; number++)
            if (connections[number].state == CLOSED)
                dial(&connections[number]);
    }
}

/* What has no answer by now has failed, and has waited at least so long. */
static void give_up(double at)
{
    for (size_t number = 0; number < count; number++)
        if (connections[number].state == ASKED && connections[number].due >= warm) {
            record(&latency, at - connections[number].due);
            unanswered++;
        }
    for (; due < until; plan())
        if (due >= warm) {
            record(&latency, at - due);
            unanswered++;
        }
    failed += unanswered;
}

static void show(const char *name, const struct histogram *of, const char *end)
{
    printf("\"%s\": {\"p50\": %.9f, \"p90\": %.9f, \"p99\": %.9f, \"p999\": %.9f, \"max\": %.9f}%s", name,
           quantile(of, 0.5), quantile(of, 0.9), quantile(of, 0.99), quantile(of, 0.999), of->largest, end);
}

static void read_request(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END))
        die(path);
    request_size = (size_t)ftell(file);
    rewind(file);
    request = malloc(request_size + 1);
    if (!request || fread(request, 1, request_size, file) != request_size || !request_size)
        die(path);
    fclose(file);
}

int main(int given, char **arguments)
{
    if (given != 10)
        die("ADDRESS PORT REQUEST RATE SECONDS WARMUP CONNECTIONS poisson|constant SEED");
    server.sin_family = AF_INET;
    server.sin_port = htons((uint16_t)atoi(arguments[2]));
    if (inet_pton(AF_INET, arguments[1], &server.sin_addr) != 1)
        die("ADDRESS is four numbers");
    read_request(arguments[3]);
    rate = atof(arguments[4]);
    double seconds = atof(arguments[5]), warmup = atof(arguments[6]);
    count = strtoul(arguments[7], NULL, 10);
    poisson = !strcmp(arguments[8], "poisson");
    seed = strtoull(arguments[9], NULL, 10);
    int known = poisson || !strcmp(arguments[8], "constant");
    if (!(rate > 0 && seconds > 0 && warmup >= 0 && count > 0 && known))
        die("a rate, a time or a kind that cannot be");

    connections = calloc(count, sizeof *connections);
    waiting = calloc(count, sizeof *waiting);
    poll_fd = epoll_create1(0);
    if (!connections || !waiting || poll_fd < 0)
        die("cannot begin");
    for (double limit = now() + OPENING; idle < count; turn())
        if (now() > limit) {
            errno = 0;
            die("the server does not take all connections");
        }

    double begin = now() + 0.001;
    warm = begin + warmup;
    until = warm + seconds;
    planned = -warmup * rate - (poisson ? 0.0 : 0.5); /* no constant arrival stands on a border */
    last_answer = until;
    plan();
    double at = begin;
    while ((due < until || asked) && (at = now()) < until + GIVE_UP)
        turn();
    if (due < until || asked) {
        give_up(at);
        last_answer = at;
    }

    printf("{\"sent\": %lu, \"answered\": %lu, \"failed\": %lu, ", sent, answered, failed);
    printf("\"errors\": {\"closed\": %lu, \"garbled\": %lu, ", closed, garbled);
    printf("\"unanswered\": %lu}, ", unanswered);
    printf("\"statuses\": {");
    const char *comma = "";
    for (int status = 0; status < STATUSES; status++)
        if (statuses[status]) {
            printf("%s\"%d\": %lu", comma, status, statuses[status]);
            comma = ", ";
        }
    printf("}, \"seconds\": %.6f, \"overtime\": %.6f, ", seconds, fmax(0.0, last_answer - until));
    show("latency", &latency, ", ");
    show("lateness", &lateness, "}\n");
    return 0;
}
