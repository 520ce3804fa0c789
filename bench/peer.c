/* The bare peers: what plain blocking sockets do, in C, without neolink.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 *   peer node                    a server for all rows of wire 2016, see bench.h; a blocking thread per connection
 *   peer canned N|M LEN TAIL     a server that answers every request with its id followed by TAIL (hex); LEN is how
 *                                many bytes a request has after its id
 *   peer ask PORT SIZE           contender: one round trip after the other, SIZE bytes of payload
 *   peer apart PORT SIZE         contender: as ask, with a buffer for the request and another for the answer
 *   peer robin PORT SIZE LINKS   contender: as ask, on so many connections in turn
 *   peer window PORT SIZE COUNT  contender: COUNT requests in one write, then their answers
 *   peer notes PORT SIZE         contender: one write per packet, and one round trip at the end of a round
 *   peer bulk PORT               contender: writes of header and 1 MiB, and one round trip at the end of a round
 *   peer take PORT               contender: reads packets of 1 MiB
 */
#include "bench.h"

#include <pthread.h>
#include <signal.h>

#define ROOM ((size_t)256 << 10)

static int sock, *socks;
static size_t size, window;
static uint32_t next_id = 1;    /* never used twice: a link knows ids that it has closed */
static uint8_t *space, *answers;    /* one and the same, but for apart */

/* ---- node ------------------------------------------------------------------------------------------------------- */

static void send_bulk(int fd, const uint8_t *request)
{
    uint32_t count = load32(request + HEAD), len = load32(request + HEAD + 4);
    uint8_t *packet = calloc(1, HEAD + len);

    put_head(packet, load32(request), TAKE | ANSWER, len);
    for (uint32_t i = 0; i < count; i++)
        write_all(fd, packet, HEAD + len);
    free(packet);
}

/* Makes room for a request that is larger than the buffer. */
static uint8_t *grown(uint8_t *buf, size_t have, size_t *room)
{
    if (have < HEAD || load32(buf + 6) <= *room)
        return buf;
    *room = load32(buf + 6);
    return realloc(buf, *room);
}

/* Handles the whole packets at the start of buf[0 .. n): requests become answers, gathered at the start. Returns how
 * many bytes it has done with; *skip is what is still to come of a notification larger than the buffer. */
static size_t handle(int fd, uint8_t *buf, size_t n, size_t *skip)
{
    size_t at = 0, out = 0;

    while (n - at >= HEAD) {
        uint8_t *p = buf + at;
        size_t len = load32(p + 6);
        if (p[5] == NOTE && len > n - at) {
            *skip = len - (n - at);
            at = n;
            break;
        }
        if (len > n - at)
            break;
        if (p[5] == TAKE)
            send_bulk(fd, p);
        if (p[5] == ASK) {
            p[4] |= ANSWER >> 8;
            memmove(buf + out, p, len);
            out += len;
        }
        at += len;
    }
    if (out)
        write_all(fd, buf, out);
    return at;
}

static void *node_thread(void *arg)
{
    int fd = (int)(intptr_t)arg;
    size_t have = 0, skip = 0, room = ROOM;
    uint8_t *buf = malloc(room);

    for (;;) {
        ssize_t n = recv(fd, buf + have, room - have, 0);
        size_t done;
        if (n <= 0)
            break;
        if (skip) {
            size_t part = skip < (size_t)n ? skip : (size_t)n;
            skip -= part;
            if ((n -= (ssize_t)part) == 0)
                continue;
            memmove(buf, buf + part, (size_t)n);
        }
        have += (size_t)n;
        done = handle(fd, buf, have, &skip);
        have -= done;
        if (have && done)
            memmove(buf, buf + done, have);
        buf = grown(buf, have, &room);
    }
    free(buf);
    close(fd);
    return NULL;
}

/* ---- canned ----------------------------------------------------------------------------------------------------- */

static uint8_t tail[256];
static size_t tail_len, request_tail;
static bool wire_m;

/* The bytes before and of the id: N has it first, in four; M has it as the first item of an array. */
static size_t id_len(const uint8_t *p)
{
    if (!wire_m)
        return 4;
    return p[1] < 0x80 ? 2 : p[1] == 0xcc ? 3 : p[1] == 0xcd ? 4 : 6;
}

static void *canned_thread(void *arg)
{
    int fd = (int)(intptr_t)arg;
    uint8_t request[64], answer[8 + sizeof tail];
    size_t have = 0;

    for (;;) {
        ssize_t n = recv(fd, request + have, sizeof request - have, 0);
        size_t id;
        if (n <= 0)
            break;
        have += (size_t)n;
        if (have < 2 || have < (id = id_len(request)) + request_tail)
            continue;
        memcpy(answer, request, id);
        memcpy(answer + id, tail, tail_len);
        write_all(fd, answer, id + tail_len);
        have = 0;
    }
    close(fd);
    return NULL;
}

static void serve(void *(*thread)(void *))
{
    int fd = listen_and_tell();

    for (;;) {
        pthread_t t;
        int one = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
        if (one < 0)
            die("accept");
        no_delay(one);
        if (pthread_create(&t, NULL, thread, (void *)(intptr_t)one))
            die("pthread_create");
        pthread_detach(t);
    }
}

/* ---- contenders ------------------------------------------------------------------------------------------------- */

static void ask(long n)
{
    for (long i = 0; i < n; i++) {
        put_head(space, next_id, ASK, size);
        next_id += 2;
        write_all(sock, space, HEAD + size);
        read_all(sock, answers, HEAD + size);
    }
}

static void robin(long n)
{
    static size_t turn;

    while (n--) {
        sock = socks[turn++ % window];
        ask(1);
    }
}

static void ask_window(long n)
{
    for (long i = 0; i < n; i += (long)window) {
        for (size_t k = 0; k < window; k++, next_id += 2)
            put_head(space + k * (HEAD + size), next_id, ASK, size);
        write_all(sock, space, window * (HEAD + size));
        read_all(sock, space, window * (HEAD + size));
    }
}

static void notes(long n)
{
    put_head(space, 1, NOTE, size);
    for (long i = 0; i < n; i++)
        write_all(sock, space, HEAD + size);
    ask(1);
}

static void bulk(long n)
{
    uint8_t head[HEAD];

    put_head(head, 1, NOTE, BULK);
    for (long i = 0; i < n; i++) {
        struct iovec v[2] = { { head, HEAD }, { space, BULK } };
        struct msghdr m = { .msg_iov = v, .msg_iovlen = 2 };
        ssize_t done = sendmsg(sock, &m, MSG_NOSIGNAL);
        if (done < (ssize_t)HEAD)
            die("sendmsg");
        write_all(sock, space + (size_t)done - HEAD, HEAD + BULK - (size_t)done);
    }
    size = 0;
    ask(1);
}

static void take(long n)
{
    uint8_t request[HEAD + 8];

    put_head(request, 1, TAKE, 8);
    store32(request + HEAD, (uint32_t)n);
    store32(request + HEAD + 4, BULK);
    write_all(sock, request, sizeof request);
    for (long i = 0; i < n; i++)
        read_all(sock, space, HEAD + BULK);
}

/* `window` connections, of which `sock` is the first. */
static void connect_more(const char *port)
{
    socks = calloc(window, sizeof *socks);
    socks[0] = sock;
    for (size_t i = 1; i < window; i++)
        socks[i] = connect_to(port);
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";

    signal(SIGPIPE, SIG_IGN);
    if (!strcmp(what, "node"))
        serve(node_thread);
    if (!strcmp(what, "canned") && argc == 5) {
        wire_m = argv[2][0] == 'M';
        request_tail = (size_t)atoi(argv[3]);
        for (const char *p = argv[4]; p[0] && p[1] && tail_len < sizeof tail; p += 2)
            sscanf(p, "%2hhx", &tail[tail_len++]);
        serve(canned_thread);
    }
    if (argc < 3)
        die("usage: see the top of peer.c");
    size = argc > 3 ? (size_t)atoi(argv[3]) : 0;
    window = argc > 4 ? (size_t)atoi(argv[4]) : 1;
    sock = connect_to(argv[2]);
    if (!strcmp(what, "robin"))
        connect_more(argv[2]);
    space = calloc(1, (strcmp(what, "window") ? 1 : window) * (HEAD + size) + HEAD + BULK);
    answers = strcmp(what, "apart") ? space : calloc(1, HEAD + size);
    do_rounds(!strcmp(what, "ask")      ? ask
              : !strcmp(what, "apart")  ? ask
              : !strcmp(what, "robin")  ? robin
              : !strcmp(what, "window") ? ask_window
              : !strcmp(what, "notes")  ? notes
              : !strcmp(what, "bulk")   ? bulk
                                        : take);
    return 0;
}
