// A worker that costs next to nothing: one thread, epoll, HTTP/1.1 with Content-Length.
//
//     worker ... --served-model-name NAME ... --port PORT ...
//
// Called with the arguments of an engine; those it does not know are passed over. It answers GET /health
// and GET /v1/models as a ready engine does, and every POST by the request's headers:
//     x-chunks N           a stream of N events and [DONE]; without it, a JSON answer of 2 KB
//     x-chunk-bytes N      of each event; default 200, which is what vLLM sends for one token
//     x-every-us N         between a stream's events; default 0, as fast as the reader takes them
//     x-work-us N          computes for so long before it answers; default 0
//     x-read-per-ms N      reads no more bytes of the request's body than that; default 0, as they come
// Each event is written by a call of its own, as an engine does, and carries the monotonic nanoseconds of
// that moment in "at".
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MOST_CONNECTIONS = 4096, HEAD_BYTES = 16384, EVENT_BYTES = 65536, ANSWER_BYTES = 2048 };
enum state { HEAD, BODY, PLAIN, STREAM };

struct connection {
    int fd, in_use;
    enum state state;
    char head[HEAD_BYTES], out[EVENT_BYTES + 512];
    size_t have, out_length, out_sent;
    long body_left, chunks, chunk_bytes, every_us, work_us, read_per_ms;
    long long next_at;
};

static struct connection *connections;
static int epoll, most_used;
static const char *name = "bench";
static char scratch[1 << 16];

static long long now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void watch(struct connection *one, unsigned events) {
    struct epoll_event event = {.events = events, .data.ptr = one};
    epoll_ctl(epoll, EPOLL_CTL_MOD, one->fd, &event);
}

static void hang_up(struct connection *one) {
    close(one->fd);
    one->in_use = 0;
}

static long header(const char *head, const char *wanted, long otherwise) {
    const char *line = strcasestr(head, wanted);
    return line ? atol(line + strlen(wanted)) : otherwise;
}

static void expect_request(struct connection *one) {
    one->state = HEAD;
    one->have = one->out_length = one->out_sent = 0;
    watch(one, EPOLLIN);
}

// Writes what is in `out`; 1 when all of it is gone, 0 when the reader is slow, -1 when it has left.
static int flush(struct connection *one) {
    while (one->out_sent < one->out_length) {
        ssize_t sent = send(one->fd, one->out + one->out_sent, one->out_length - one->out_sent, MSG_NOSIGNAL);
        if (sent < 0) return errno == EAGAIN ? 0 : -1;
        one->out_sent += sent;
    }
    one->out_length = one->out_sent = 0;
    return 1;
}

static void put(struct connection *one, const char *type, const char *body, size_t length) {
    one->out_length = sprintf(one->out, "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %zu\r\n\r\n",
                              type, length);
    memcpy(one->out + one->out_length, body, length);
    one->out_length += length;
    one->state = PLAIN;
}

static void put_answer(struct connection *one) {
    char body[ANSWER_BYTES];
    int length = sprintf(body, "{\"id\":\"bench\",\"object\":\"chat.completion\",\"created\":1,\"model\":\"%s\","
                         "\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1,\"total_tokens\":2},"
                         "\"choices\":[{\"index\":0,\"finish_reason\":\"stop\",\"message\":"
                         "{\"role\":\"assistant\",\"content\":\"", name);
    memset(body + length, 'x', ANSWER_BYTES - length);
    memcpy(body + ANSWER_BYTES - 5, "\"}}]}", 5);
    put(one, "application/json", body, ANSWER_BYTES);
}

static void put_event(struct connection *one) {
    char event[EVENT_BYTES];
    int length = sprintf(event, "data: {\"at\":%lld,\"choices\":[{\"index\":0,\"delta\":{\"content\":\"",
                         now_ns());
    memset(event + length, 'x', one->chunk_bytes - length);
    memcpy(event + one->chunk_bytes - 7, "\"}}]}\n\n", 7);
    one->out_length = sprintf(one->out, "%lx\r\n", one->chunk_bytes);
    memcpy(one->out + one->out_length, event, one->chunk_bytes);
    memcpy(one->out + one->out_length + one->chunk_bytes, "\r\n", 2);
    one->out_length += one->chunk_bytes + 2;
}

static void begin_answer(struct connection *one) {
    if (!strncmp(one->head, "GET /v1/models", 14)) {
        int length = sprintf(scratch, "{\"object\":\"list\",\"data\":[{\"id\":\"%s\"}]}", name);
        put(one, "application/json", scratch, length);
    } else if (!strncmp(one->head, "GET ", 4)) {
        put(one, "application/json", "{}", 2);
    } else if (one->chunks == 0) {
        for (long long until = now_ns() + one->work_us * 1000; one->work_us && now_ns() < until;) continue;
        put_answer(one);
    } else {
        one->out_length = sprintf(one->out, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                                  "Transfer-Encoding: chunked\r\n\r\n");
        one->state = STREAM;
        one->next_at = now_ns();
    }
    watch(one, EPOLLOUT);
}

static void take_head(struct connection *one) {
    ssize_t got = recv(one->fd, one->head + one->have, HEAD_BYTES - 1 - one->have, 0);
    if (got <= 0) {
        if (got == 0 || errno != EAGAIN) hang_up(one);
        return;
    }
    one->have += got;
    one->head[one->have] = 0;
    char *end = strstr(one->head, "\r\n\r\n");
    if (!end) {
        if (one->have == HEAD_BYTES - 1) hang_up(one);
        return;
    }
    size_t head_bytes = end + 4 - one->head;
    *end = 0;
    one->chunks = header(one->head, "\r\nx-chunks: ", 0);
    one->chunk_bytes = header(one->head, "\r\nx-chunk-bytes: ", 200);
    one->every_us = header(one->head, "\r\nx-every-us: ", 0);
    one->work_us = header(one->head, "\r\nx-work-us: ", 0);
    one->read_per_ms = header(one->head, "\r\nx-read-per-ms: ", 0);
    one->body_left = header(one->head, "\r\ncontent-length: ", 0) - (long)(one->have - head_bytes);
    one->state = BODY;
    if (one->body_left <= 0) begin_answer(one);
}

static void take_body(struct connection *one) {
    size_t most = sizeof scratch;
    if (one->read_per_ms) {
        usleep(1000);
        most = one->read_per_ms < (long)most ? (size_t)one->read_per_ms : most;
    }
    ssize_t got = recv(one->fd, scratch, most, 0);
    if (got <= 0) {
        if (got == 0 || errno != EAGAIN) hang_up(one);
        return;
    }
    one->body_left -= got;
    if (one->body_left <= 0) begin_answer(one);
}

// One event at most, so that all streams go on side by side.
static void stream_on(struct connection *one) {
    int gone = flush(one);
    if (gone < 0) return hang_up(one);
    if (gone == 0) return watch(one, EPOLLOUT);
    if (one->chunks == 0) return expect_request(one);
    if (one->every_us && now_ns() < one->next_at) return watch(one, 0);
    put_event(one);
    one->next_at += one->every_us * 1000;
    if (--one->chunks == 0)
        one->out_length += sprintf(one->out + one->out_length, "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n");
    gone = flush(one);
    if (gone < 0) return hang_up(one);
    watch(one, gone && one->every_us && one->chunks ? 0 : EPOLLOUT);
}

static void serve(struct connection *one, unsigned events) {
    if (events & (EPOLLERR | EPOLLHUP)) return hang_up(one);
    if (one->state == HEAD) {
        take_head(one);
    } else if (one->state == BODY) {
        take_body(one);
    } else if (one->state == STREAM) {
        stream_on(one);
    } else {
        int gone = flush(one);
        if (gone < 0) return hang_up(one);
        if (gone) expect_request(one);
    }
}

static void welcome(int listener) {
    int yes = 1, fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
    if (fd < 0) return;
    for (int at = 0; at < MOST_CONNECTIONS; at++) {
        struct connection *one = &connections[at];
        if (one->in_use) continue;
        if (at >= most_used) most_used = at + 1;
        one->fd = fd;
        one->in_use = 1;
        one->state = HEAD;
        one->have = one->out_length = one->out_sent = 0;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = one};
        epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
        return;
    }
    close(fd);
}

// Paced streams whose time has come; returns the milliseconds until the next one's.
static int wake_paced(void) {
    long long now = now_ns(), next = now + 1000000000LL;
    for (int at = 0; at < most_used; at++) {
        struct connection *one = &connections[at];
        if (!one->in_use || one->state != STREAM || !one->every_us || one->out_length) continue;
        if (one->next_at <= now) stream_on(one);
        if (one->in_use && one->state == STREAM && one->next_at < next) next = one->next_at;
    }
    return next <= now ? 0 : (int)((next - now + 999999) / 1000000);
}

static int listen_on(int port) {
    int yes = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 2048)) {
        perror("worker: cannot listen");
        exit(1);
    }
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    return listener;
}

int main(int count, char **arguments) {
    int port = 0;
    for (int at = 1; at + 1 < count; at++) {
        if (!strcmp(arguments[at], "--port")) port = atoi(arguments[at + 1]);
        if (!strcmp(arguments[at], "--served-model-name")) name = arguments[at + 1];
    }
    connections = calloc(MOST_CONNECTIONS, sizeof *connections);
    epoll = epoll_create1(0);
    int listener = listen_on(port);
    struct epoll_event events[256];
    for (;;) {
        int ready = epoll_wait(epoll, events, 256, wake_paced());
        for (int at = 0; at < ready; at++) {
            struct connection *one = events[at].data.ptr;
            if (one == NULL)
                welcome(listener);
            else if (one->in_use)
                serve(one, events[at].events);
        }
    }
}
