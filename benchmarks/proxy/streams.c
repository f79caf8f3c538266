// Reads many event streams at once and times them: one thread, epoll.
//
//     streams PORT CONNECTIONS ROUNDS SPREAD_MS [HEADER: VALUE]... < BODY
//
// Sends POST /v1/chat/completions with BODY on each of CONNECTIONS kept connections, the first round's
// spread over SPREAD_MS, and reads until every answer is whole; so ROUNDS times, each begun when the one
// before it has ended. Prints JSON: events (those with "at", as worker.c writes them), broken streams,
// seconds, and in microseconds the time to each stream's first event (median, 99th percentile) and from
// each event's writing to its reading (median, 99th percentile, largest).
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { LINE_BYTES = 64 };
enum part { STATUS, SIZE, DATA, AFTER_DATA, TRAILER, WHOLE };

struct stream {
    int fd, fresh, broken;
    enum part part;
    char line[LINE_BYTES];
    int line_length, blank_lines;
    long left;
    long long sent_at;
};
struct sample {
    long long *values;
    long count, room;
};

static struct stream *streams;
static struct sample first, delay;
static long events_seen;
static int running, broken, round_number;
static char *request;
static size_t request_bytes;

static long long now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void add(struct sample *to, long long value) {
    if (to->count == to->room) {
        to->room = to->room ? 2 * to->room : 4096;
        to->values = realloc(to->values, to->room * sizeof *to->values);
    }
    to->values[to->count++] = value;
}

static int ascending(const void *a, const void *b) {
    long long left = *(const long long *)a, right = *(const long long *)b;
    return (left > right) - (left < right);
}

static double percentile_us(struct sample *of, double share) {
    if (!of->count) return 0;
    qsort(of->values, of->count, sizeof *of->values, ascending);
    return of->values[(long)((of->count - 1) * share)] / 1000.0;
}

static void end(struct stream *one, int is_broken) {
    one->part = WHOLE;
    one->broken = is_broken;
    broken += is_broken;
    running--;
}

// A line of the head, a chunk's size, or the beginning of an event's line.
static void take_line(struct stream *one, long long now) {
    one->line[one->line_length < LINE_BYTES ? one->line_length : LINE_BYTES - 1] = 0;
    if (one->part == DATA) {
        if (strncmp(one->line, "data: {\"at\":", 12)) return;
        events_seen++;
        add(&delay, now - atoll(one->line + 12));
        if (one->fresh) add(&first, now - one->sent_at);
        one->fresh = 0;
    }
}

static void take_data(struct stream *one, const char *bytes, long count, long long now) {
    for (const char *at = bytes; at < bytes + count;) {
        const char *newline = memchr(at, '\n', bytes + count - at);
        long length = (newline ? newline : bytes + count) - at;
        long room = LINE_BYTES - 1 - one->line_length;
        long kept = length < room ? length : room;
        memcpy(one->line + one->line_length, at, kept);
        one->line_length += kept;
        at += length + 1;
        if (newline) {
            take_line(one, now);
            one->line_length = 0;
        }
    }
}

// The chunked framing, byte by byte but for the data.
static void take(struct stream *one, const char *bytes, long count, long long now) {
    static char size[LINE_BYTES];
    for (long at = 0; at < count && one->part != WHOLE;) {
        char byte = bytes[at];
        switch (one->part) {
        case STATUS:
            if (one->line_length < LINE_BYTES - 1) one->line[one->line_length++] = byte;
            one->blank_lines = byte == '\n' ? one->blank_lines + 1 : byte == '\r' ? one->blank_lines : 0;
            if (one->blank_lines == 2) {
                if (strncmp(one->line, "HTTP/1.1 200", 12)) return end(one, 1);
                one->part = SIZE;
                one->line_length = 0;
                one->left = 0;
            }
            at++;
            break;
        case SIZE:
            if (byte == '\n') one->part = one->left ? DATA : TRAILER;
            else if (byte != '\r') {
                size[0] = byte, size[1] = 0;
                one->left = one->left * 16 + strtol(size, NULL, 16);
            }
            at++;
            break;
        case DATA: {
            long here = one->left < count - at ? one->left : count - at;
            take_data(one, bytes + at, here, now);
            at += here;
            if (!(one->left -= here)) one->part = AFTER_DATA;
            break;
        }
        case AFTER_DATA:
            if (byte == '\n') one->part = SIZE;
            at++;
            break;
        default:
            if (byte == '\n') end(one, one->fresh);
            at++;
        }
    }
}

static void ask(struct stream *one) {
    one->part = STATUS;
    one->fresh = 1;
    one->line_length = one->blank_lines = 0;
    one->sent_at = now_ns();
    running++;
    if (send(one->fd, request, request_bytes, MSG_NOSIGNAL) != (ssize_t)request_bytes) end(one, 1);
}

static void dial(struct stream *one, int port, int epoll) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int yes = 1;
    one->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(one->fd, (struct sockaddr *)&address, sizeof address)) {
        perror("streams: cannot connect");
        exit(1);
    }
    setsockopt(one->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = one};
    epoll_ctl(epoll, EPOLL_CTL_ADD, one->fd, &event);
}

static void write_request(int count, char **arguments) {
    static char body[1 << 20];
    size_t body_bytes = fread(body, 1, sizeof body, stdin);
    request = malloc(body_bytes + 4096);
    char *at = request + sprintf(request, "POST /v1/chat/completions HTTP/1.1\r\nHost: bench\r\n"
                                 "Content-Type: application/json\r\nContent-Length: %zu\r\n", body_bytes);
    for (int number = 5; number < count; number++) at += sprintf(at, "%s\r\n", arguments[number]);
    at += sprintf(at, "\r\n");
    memcpy(at, body, body_bytes);
    request_bytes = at + body_bytes - request;
}

static void read_ready(int epoll, int wait_ms) {
    static char bytes[1 << 18];
    struct epoll_event ready[256];
    int count = epoll_wait(epoll, ready, 256, wait_ms);
    for (int at = 0; at < count; at++) {
        struct stream *one = ready[at].data.ptr;
        ssize_t got = recv(one->fd, bytes, sizeof bytes, MSG_DONTWAIT);
        if (got > 0) {
            take(one, bytes, got, now_ns());
        } else {
            epoll_ctl(epoll, EPOLL_CTL_DEL, one->fd, NULL);
            if (one->part != WHOLE) end(one, 1);
        }
    }
}

static void run_round(int epoll, int connections, int spread_ms) {
    long long began = now_ns();
    for (int asked = 0; asked < connections || running;) {
        long long due = asked * (long long)spread_ms * 1000000 / connections;
        if (asked < connections && now_ns() - began >= due)
            ask(&streams[asked++]);
        else
            read_ready(epoll, asked < connections ? 1 : 1000);
    }
}

int main(int count, char **arguments) {
    if (count < 5) return 2;
    int port = atoi(arguments[1]), connections = atoi(arguments[2]), rounds = atoi(arguments[3]);
    int epoll = epoll_create1(0);
    write_request(count, arguments);
    streams = calloc(connections, sizeof *streams);
    for (int at = 0; at < connections; at++) dial(&streams[at], port, epoll);
    long long began = now_ns();
    for (; round_number < rounds && !broken; round_number++)
        run_round(epoll, connections, round_number ? 0 : atoi(arguments[4]));
    double seconds = (now_ns() - began) / 1e9;
    printf("{\"events\":%ld,\"broken\":%d,\"seconds\":%.6f,\"first_us\":[%.1f,%.1f],"
           "\"delay_us\":[%.1f,%.1f,%.1f]}\n",
           events_seen, broken, seconds, percentile_us(&first, 0.5), percentile_us(&first, 0.99),
           percentile_us(&delay, 0.5), percentile_us(&delay, 0.99), percentile_us(&delay, 1));
}
