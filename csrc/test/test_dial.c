/* Tests of dial.c, listen.c and opening.c: real sockets over loopback, against each other and against peers that only
 * know a script.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A script is a thread at the other end of a socket: "> hex" sends, "< n" waits for n bytes, "$" for the end of the
 * stream, "x" resets; then it closes. Whatever a test waits for has a deadline of SOON_NS, which no passing test
 * reaches.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "neolink.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "certs.h"
#include "kit.h"
#include "opening.h"

#define SOON_NS INT64_C(20000000000)
#define M_OPENING "92a34e454f05"
#define M_BIN_OPENING "92c4034e454f05"
#define N_WORD    "00000006"

static int64_t soon(void)       { return nl_now_ns() + SOON_NS; }

/* ---- sockets ----------------------------------------------------------------------------------------------------- */

static struct sockaddr_in loopback(void)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    return a;
}

static int listen_plain(struct sockaddr_in *address)
{
    socklen_t len = sizeof *address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    *address = loopback();
    assert_int_equal(bind(fd, (struct sockaddr *)address, len), 0);
    assert_int_equal(listen(fd, 16), 0);
    getsockname(fd, (struct sockaddr *)address, &len);
    return fd;
}

static int connect_to(nl_listener *l)
{
    socklen_t len;
    const struct sockaddr *address = nl_listener_address(l, &len);
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, address, len), 0);
    return fd;
}

static void send_hex(int fd, const char *hex)
{
    unsigned byte;
    int used;
    while (sscanf(hex, " %2x%n", &byte, &used) == 1) {
        uint8_t b = (uint8_t)byte;
        if (send(fd, &b, 1, MSG_NOSIGNAL) != 1)
            return;
        hex += used;
    }
}

/* Reads until the end of the stream or n bytes; returns their number. Gives up after SOON_NS. */
static size_t read_up_to(int fd, uint8_t *p, size_t n)
{
    size_t have = 0;
    struct pollfd ready = { .fd = fd, .events = POLLIN };
    while (have < n && poll(&ready, 1, (int)(SOON_NS / 1000000)) == 1) {
        ssize_t k = recv(fd, p + have, n - have, 0);
        if (k <= 0)
            break;
        have += (size_t)k;
    }
    return have;
}

/* ---- scripted peers ---------------------------------------------------------------------------------------------- */

typedef struct peer {
    struct sockaddr_in address;
    int         fd;                     /* listens */
    const char *scripts[4];             /* one per connection, NULL behind the last */
    uint8_t     heard[4][256];
    size_t      heard_len[4];
    pthread_t   thread;
} peer;

static void follow(int fd, const char *script, uint8_t *heard, size_t *heard_len)
{
    for (const char *word = script; word; word = strchr(word, ';') ? strchr(word, ';') + 1 : NULL) {
        word += strspn(word, " ");
        if (*word == '>') {
            send_hex(fd, word + 1);
        } else if (*word == '<') {
            *heard_len += read_up_to(fd, heard + *heard_len, (size_t)atoi(word + 1));
        } else if (*word == '$') {
            *heard_len += read_up_to(fd, heard + *heard_len, 256 - *heard_len);
        } else if (*word == 'x') {
            struct linger hard = { 1, 0 };
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
        }
    }
}

static void *run_peer(void *arg)
{
    peer *p = arg;
    for (int i = 0; i < 4 && p->scripts[i]; i++) {
        int fd = accept(p->fd, NULL, NULL);
        if (fd < 0)
            break;
        follow(fd, p->scripts[i], p->heard[i], &p->heard_len[i]);
        close(fd);
    }
    return NULL;
}

static void peer_start(peer *p, const char *first, const char *second, const char *third)
{
    memset(p, 0, sizeof *p);
    p->fd = listen_plain(&p->address);
    p->scripts[0] = first;
    p->scripts[1] = second;
    p->scripts[2] = third;
    assert_int_equal(pthread_create(&p->thread, NULL, run_peer, p), 0);
}

static void peer_stop(peer *p)
{
    shutdown(p->fd, SHUT_RDWR);
    pthread_join(p->thread, NULL);
    close(p->fd);
}

static void peer_heard(const peer *p, int connection, const char *hex)
{
    char got[513] = "";
    for (size_t i = 0; i < p->heard_len[connection]; i++)
        sprintf(got + 2 * i, "%02x", p->heard[connection][i]);
    assert_string_equal(got, hex);
}

/* ---- dialing ----------------------------------------------------------------------------------------------------- */

typedef struct dialed {
    nl_err       err;
    nl_link     *link;
    nl_fault     why;
    nl_hs_report report;
} dialed;

static dialed dial_with(const struct sockaddr *address, socklen_t len, const nl_dial_config *config, int64_t deadline)
{
    dialed d = { 0 };
    nl_dialer *dialer;
    assert_int_equal(nl_dialer_new(address, len, config, &dialer), NL_OK);
    do
        d.err = nl_dialer_wait(dialer, deadline, &d.link, &d.why, &d.report);
    while (d.err == NL_EINTR);
    nl_dialer_free(dialer);
    return d;
}

static dialed dial_peer(const peer *p, nl_wire wire)
{
    nl_dial_config config;
    nl_dial_config_default(&config);
    config.link.wire = wire;
    return dial_with((const struct sockaddr *)&p->address, sizeof p->address, &config, soon());
}

static void became(dialed *d, nl_wire wire, int version)
{
    if (d->err != NL_OK)
        fail_msg("%s: %s", nl_err_name(d->err), d->why.text);
    assert_int_equal(nl_link_wire(d->link), wire);
    assert_int_equal(nl_link_version(d->link), version);
    assert_int_equal(nl_link_role(d->link), NL_CLIENT);
    nl_link_rele(d->link);
}

static void failed(const dialed *d, const char *ours, const char *theirs)
{
    assert_int_equal(d->err, NL_EHANDSHAKE);
    assert_int_equal(d->why.code, NL_EHANDSHAKE);
    assert_null(d->link);
    assert_string_equal(d->report.ours, ours);
    assert_string_equal(d->report.theirs, theirs);
}

static void test_dial_neo_nodes(void **state)
{
    peer p;
    dialed d;
    (void)state;
    peer_start(&p, "> " M_OPENING "; < 6; $", NULL, NULL);      /* NEO/py of today */
    d = dial_peer(&p, NL_WIRE_AUTO);
    became(&d, NL_WIRE_M, 5);
    peer_stop(&p);
    peer_heard(&p, 0, M_OPENING);

    peer_start(&p, "> " N_WORD "; $", NULL, NULL);              /* NEO 1.12 */
    d = dial_peer(&p, NL_WIRE_AUTO);
    became(&d, NL_WIRE_N, 6);
    peer_stop(&p);
    peer_heard(&p, 0, N_WORD);

    peer_start(&p, "$", "< 4; > " N_WORD "; $", NULL);          /* NEO/go: takes M for HTTP, answers N */
    d = dial_peer(&p, NL_WIRE_AUTO);
    became(&d, NL_WIRE_N, 6);
    peer_stop(&p);
    peer_heard(&p, 0, M_OPENING);
    peer_heard(&p, 1, N_WORD);

    peer_start(&p, "< 6", "< 4; > " N_WORD "; $", NULL);        /* closes on M */
    d = dial_peer(&p, NL_WIRE_AUTO);
    became(&d, NL_WIRE_N, 6);
    peer_stop(&p);

    peer_start(&p, "$", NULL, NULL);
    d = dial_peer(&p, NL_WIRE_2016);
    became(&d, NL_WIRE_2016, -1);
    peer_stop(&p);
    peer_heard(&p, 0, "");
}

/* Python 2 nodes of M have an opening of their own, and hang up on the other one, with or without a word. */
static void test_dial_m_of_python_2(void **state)
{
    peer p;
    dialed d;
    (void)state;
    peer_start(&p, "< 6; > " M_BIN_OPENING, "> " M_BIN_OPENING "; < 7; $", NULL);
    d = dial_peer(&p, NL_WIRE_M);
    became(&d, NL_WIRE_M, 5);
    peer_stop(&p);
    peer_heard(&p, 0, M_OPENING);
    peer_heard(&p, 1, M_BIN_OPENING);

    peer_start(&p, "< 1; x", "> " M_BIN_OPENING "; < 7; $", NULL);
    d = dial_peer(&p, NL_WIRE_M);
    became(&d, NL_WIRE_M, 5);
    peer_stop(&p);
    peer_heard(&p, 1, M_BIN_OPENING);

    peer_start(&p, "> " M_BIN_OPENING "; < 7; $", NULL, NULL);
    d = dial_peer(&p, NL_WIRE_AUTO);
    became(&d, NL_WIRE_M, 5);
    peer_stop(&p);

    peer_start(&p, "$", "< 4; > " M_BIN_OPENING, "< 6; > " M_BIN_OPENING);  /* and slow: the fourth hears first */
    p.scripts[3] = "> " M_BIN_OPENING "; < 7; $";
    d = dial_peer(&p, NL_WIRE_AUTO);
    became(&d, NL_WIRE_M, 5);
    peer_stop(&p);
    peer_heard(&p, 3, M_BIN_OPENING);
}

/* A node of M that was too slow twice: the third connection says what it wants to hear. */
static void test_dial_slow_node(void **state)
{
    peer p;
    (void)state;
    peer_start(&p, "$", "< 4; > " M_OPENING "; $", "> " M_OPENING "; $");
    dialed d = dial_peer(&p, NL_WIRE_AUTO);
    became(&d, NL_WIRE_M, 5);
    peer_stop(&p);
    peer_heard(&p, 2, M_OPENING);
}

static void test_dial_mismatches(void **state)
{
    peer p;
    dialed d;
    (void)state;
    peer_start(&p, "> 92a34e454f04; $", NULL, NULL);
    d = dial_peer(&p, NL_WIRE_AUTO);
    failed(&d, "NEO M protocol 5", "NEO M protocol 4");
    peer_stop(&p);
    peer_heard(&p, 0, M_OPENING);

    peer_start(&p, "> " N_WORD "; $", NULL, NULL);
    d = dial_peer(&p, NL_WIRE_M);
    failed(&d, "NEO M protocol 5", "NEO N protocol 6");
    peer_stop(&p);
    peer_heard(&p, 0, M_OPENING);

    peer_start(&p, "> 485454502f312e31; $", NULL, NULL);
    d = dial_peer(&p, NL_WIRE_N);
    failed(&d, "NEO N protocol 6", "HTTP");
    peer_stop(&p);

    peer_start(&p, "", NULL, NULL);
    d = dial_peer(&p, NL_WIRE_AUTO);
    failed(&d, "NEO M protocol 5 or NEO N protocol 6", "nothing");
    assert_non_null(strstr(d.why.text, "closed without a word"));
    peer_stop(&p);

    peer_start(&p, "< 6; x", "x", NULL);                        /* twice: it might have wanted the other form of M */
    d = dial_peer(&p, NL_WIRE_M);
    failed(&d, "NEO M protocol 5", "nothing");
    peer_stop(&p);

    peer_start(&p, "< 4; x", NULL, NULL);
    d = dial_peer(&p, NL_WIRE_N);
    failed(&d, "NEO N protocol 6", "nothing");
    peer_stop(&p);
}

static void test_dial_nobody(void **state)
{
    struct sockaddr_in address;
    nl_dial_config config;
    (void)state;
    close(listen_plain(&address));
    nl_dial_config_default(&config);
    dialed d = dial_with((struct sockaddr *)&address, sizeof address, &config, soon());
    assert_int_equal(d.err, NL_ESYS);
    assert_int_equal(d.why.sys_errno, ECONNREFUSED);
    assert_non_null(strstr(d.why.text, "127.0.0.1:"));
}

static void test_dial_times_out(void **state)
{
    peer p;
    nl_dial_config config;
    (void)state;
    peer_start(&p, "$", NULL, NULL);
    nl_dial_config_default(&config);
    config.link.wire = NL_WIRE_N;
    dialed d = dial_with((struct sockaddr *)&p.address, sizeof p.address, &config, nl_now_ns() + 50000000);
    assert_int_equal(d.err, NL_ETIMEOUT);
    assert_non_null(strstr(d.why.text, "shaking hands"));
    assert_non_null(strstr(d.why.text, "wire=\"2016\""));
    assert_string_equal(d.report.theirs, "nothing");
    peer_stop(&p);
}

/* A wait that ran out of time, and one that a signal ended, lose nothing: the next goes on with the same connection. */
static void on_signal(int number) { (void)number; }

static void test_dial_goes_on_after_a_signal(void **state)
{
    struct sigaction action = { .sa_handler = on_signal };
    struct itimerval alarm_in = { { 0, 10000 }, { 0, 10000 } }, off = { 0 };
    struct sockaddr_in address;
    nl_dial_config config;
    nl_dialer *dialer;
    nl_link *link;
    nl_fault why;
    nl_hs_report report;
    (void)state;
    int fd = listen_plain(&address);
    nl_dial_config_default(&config);
    config.link.wire = NL_WIRE_M;
    assert_int_equal(nl_dialer_new((struct sockaddr *)&address, sizeof address, &config, &dialer), NL_OK);
    assert_int_equal(nl_dialer_wait(dialer, NL_NOW, &link, &why, &report), NL_ETIMEOUT);
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &alarm_in, NULL);
    assert_int_equal(nl_dialer_wait(dialer, soon(), &link, &why, &report), NL_EINTR);
    setitimer(ITIMER_REAL, &off, NULL);
    int peer_fd = accept(fd, NULL, NULL);
    send_hex(peer_fd, M_OPENING);
    assert_int_equal(nl_dialer_wait(dialer, soon(), &link, &why, &report), NL_OK);
    nl_link_rele(link);
    nl_dialer_free(dialer);
    close(peer_fd);
    close(fd);
}

static void *cancel(void *dialer)
{
    nl_dialer_cancel(dialer);
    return NULL;
}

static void test_cancel(void **state)
{
    struct sockaddr_in address;
    nl_dial_config config;
    nl_dialer *dialer;
    nl_link *link;
    nl_fault why;
    nl_hs_report report;
    pthread_t thread;
    (void)state;
    int fd = listen_plain(&address);
    nl_dial_config_default(&config);
    config.link.wire = NL_WIRE_M;
    nl_dialer_new((struct sockaddr *)&address, sizeof address, &config, &dialer);
    pthread_create(&thread, NULL, cancel, dialer);
    assert_int_equal(nl_dialer_wait(dialer, soon(), &link, &why, &report), NL_ECANCELLED);
    pthread_join(thread, NULL);
    assert_int_equal(nl_dialer_wait(dialer, soon(), &link, &why, &report), NL_ECANCELLED);
    nl_dialer_free(dialer);
    close(fd);
}

static void test_bad_arguments(void **state)
{
    struct sockaddr_in address = loopback();
    nl_dial_config config;
    nl_dialer *dialer;
    (void)state;
    nl_dial_config_default(&config);
    config.link.version = 128;
    assert_int_equal(nl_dialer_new((struct sockaddr *)&address, sizeof address, &config, &dialer), NL_EINVAL);
    config.link.wire = NL_WIRE_N;
    assert_int_equal(nl_dialer_new((struct sockaddr *)&address, sizeof address, &config, &dialer), NL_OK);
    nl_dialer_free(dialer);
    assert_int_equal(nl_dialer_new((struct sockaddr *)&address, 0, &config, &dialer), NL_EINVAL);
}

static void test_bad_arguments_of_a_listener(void **state)
{
    struct sockaddr_in address = loopback();
    nl_listen_config config;
    nl_listener *l;
    nl_fault why;
    (void)state;
    nl_listen_config_default(&config);
    assert_int_equal(nl_listener_new((struct sockaddr *)&address, 1, &config, &l, &why), NL_EINVAL);
    assert_string_equal(why.text, "a socket address of 1 bytes");
    address.sin_family = AF_APPLETALK;
    assert_int_equal(nl_listener_new((struct sockaddr *)&address, sizeof address, &config, &l, &why), NL_ESYS);
    assert_non_null(strstr(why.text, "an unknown address"));
    address = loopback();
    config.link.wire = NL_WIRE_M;
    config.link.version = 128;
    assert_int_equal(nl_listener_new((struct sockaddr *)&address, sizeof address, &config, &l, &why), NL_EINVAL);
    assert_non_null(strstr(why.text, "protocol number 128"));

    nl_listen_config_default(&config);
    config.backlog = 0;                                 /* one, then: a listener that takes nobody would be none */
    assert_int_equal(nl_listener_new((struct sockaddr *)&address, sizeof address, &config, &l, &why), NL_OK);
    nl_listener_hold(l);
    nl_listener_rele(l);
    assert_true(nl_listener_fd(l) >= 0);                /* the second reference keeps it open */
    nl_listener_rele(l);
}

static void test_addresses_in_words(void **state)
{
    struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_port = htons(24210),
                                .sin6_addr = IN6ADDR_LOOPBACK_INIT };
    struct sockaddr_in in = loopback();
    struct sockaddr_un un = { .sun_family = AF_UNIX, .sun_path = "/run/neo" };
    socklen_t family = offsetof(struct sockaddr_un, sun_path);
    struct sockaddr other = { .sa_family = AF_APPLETALK };
    char text[NL_ADDRESS_TEXT];
    (void)state;
    in.sin_port = htons(24210);
    assert_string_equal(nl_address_text((struct sockaddr *)&in, sizeof in, text), "127.0.0.1:24210");
    assert_string_equal(nl_address_text((struct sockaddr *)&in6, sizeof in6, text), "[::1]:24210");
    assert_string_equal(nl_address_text((struct sockaddr *)&un, sizeof un, text), "unix:/run/neo");
    memcpy(un.sun_path, "\0neo", 4);
    assert_string_equal(nl_address_text((struct sockaddr *)&un, family + 4, text), "unix:@neo");
    assert_string_equal(nl_address_text((struct sockaddr *)&un, family, text), "unix:");
    assert_string_equal(nl_address_text(&other, sizeof other, text), "an unknown address");
    assert_string_equal(nl_address_text((struct sockaddr *)&in, 4, text), "an unknown address");
}

static void test_errors_in_words(void **state)
{
    (void)state;
    for (nl_err e = NL_OK; e < NL_ERR_COUNT; e++)
        assert_memory_equal(nl_err_name(e), "NL_", 3);
    assert_string_equal(nl_err_name(NL_ETIMEOUT), "NL_ETIMEOUT");
    assert_string_equal(nl_err_name(NL_ERR_COUNT), "unknown nl_err");
    assert_string_equal(nl_err_name((nl_err)-1), "unknown nl_err");
}

/* ---- listening --------------------------------------------------------------------------------------------------- */

static nl_listener *listener_of(const nl_listen_config *config)
{
    struct sockaddr_in address = loopback();
    nl_listener *l;
    nl_fault why;
    if (nl_listener_new((struct sockaddr *)&address, sizeof address, config, &l, &why) != NL_OK)
        fail_msg("%s", why.text);
    return l;
}

static nl_listener *listener_new(void)
{
    nl_listen_config config;
    nl_listen_config_default(&config);
    return listener_of(&config);
}

static dialed accept_one(nl_listener *l, int64_t deadline)
{
    dialed d = { 0 };
    struct sockaddr_storage from;
    socklen_t len;
    do
        d.err = nl_listener_accept(l, deadline, &d.link, &d.why, &d.report, &from, &len);
    while (d.err == NL_EINTR);
    return d;
}

static dialed dial_listener(nl_listener *l, nl_dial_config *config)
{
    socklen_t len;
    const struct sockaddr *address = nl_listener_address(l, &len);
    return dial_with(address, len, config, soon());
}

/* Two links that are to be the ends of one: a packet crosses. */
static void talk(nl_link *client, nl_link *server)
{
    nl_conn *conn, *theirs;
    nl_packet *packet;
    assert_int_equal(nl_conn_new(client, &conn), NL_OK);
    assert_int_equal(nl_conn_send(conn, 1, NULL, 0, soon(), NULL), NL_OK);
    assert_int_equal(nl_link_recv1(server, soon(), &theirs, &packet), NL_OK);
    assert_int_equal(packet->code, 1);
    nl_packet_free(packet);
    nl_conn_rele(theirs);
    nl_conn_rele(conn);
}

static void test_dial_meets_listen(void **state)
{
    static const nl_wire wires[] = { NL_WIRE_AUTO, NL_WIRE_M, NL_WIRE_N };
    nl_listener *l = listener_new();
    nl_dial_config config;
    (void)state;
    nl_dial_config_default(&config);
    for (int i = 0; i < 3; i++) {
        config.link.wire = wires[i];
        dialed client = dial_listener(l, &config), server = accept_one(l, soon());
        assert_int_equal(client.err, NL_OK);
        assert_int_equal(server.err, NL_OK);
        assert_int_equal(nl_link_role(server.link), NL_SERVER);
        assert_int_equal(nl_link_wire(client.link), nl_link_wire(server.link));
        assert_int_equal(nl_link_version(client.link), nl_link_version(server.link));
        talk(client.link, server.link);
        nl_link_rele(client.link);
        nl_link_rele(server.link);
    }
    nl_listener_rele(l);
}

/* The first packet of 2016 is what the listener tells it by; it must reach the link. */
static void test_listen_2016(void **state)
{
    nl_listener *l = listener_new();
    nl_conn *conn;
    nl_packet *packet;
    (void)state;
    int fd = connect_to(l);
    send_hex(fd, "00000001 0001 0000000c abcd");
    dialed d = accept_one(l, soon());
    assert_int_equal(d.err, NL_OK);
    assert_int_equal(nl_link_wire(d.link), NL_WIRE_2016);
    assert_int_equal(nl_link_recv1(d.link, soon(), &conn, &packet), NL_OK);
    assert_int_equal(packet->len, 2);
    assert_memory_equal(packet->payload, "\xab\xcd", 2);
    nl_packet_free(packet);
    nl_conn_rele(conn);
    nl_link_rele(d.link);
    close(fd);
    nl_listener_rele(l);
}

static void stranger(nl_listener *l, const char *hex, const char *theirs, const char *answer)
{
    char got[513] = "";
    uint8_t bytes[256];
    int fd = connect_to(l);
    send_hex(fd, hex);
    size_t n = read_up_to(fd, bytes, sizeof bytes);             /* up to the end: our word is not lost in a reset */
    close(fd);
    for (size_t i = 0; i < n; i++)
        sprintf(got + 2 * i, "%02x", bytes[i]);
    assert_true(strncmp(got, answer, strlen(answer)) == 0 && (*answer || n == 0));
    dialed d = accept_one(l, soon());
    assert_int_equal(d.err, NL_EHANDSHAKE);
    assert_string_equal(d.report.theirs, theirs);
    assert_non_null(strstr(d.why.text, "127.0.0.1:"));
}

static void test_strangers(void **state)
{
    nl_listener *l = listener_new();
    (void)state;
    stranger(l, "1603010200010001fc0303", "TLS", "15030100020228");
    stranger(l, "474554202f20485454502f312e310d0a", "HTTP", "485454502f312e3020343030");
    stranger(l, "05", "bytes 05", "");
    stranger(l, "92a34e454f0400000000", "NEO M protocol 4", M_OPENING);
    stranger(l, "00000005", "NEO N protocol 5", N_WORD);
    nl_listener_rele(l);
}

static void test_silent_peer_costs_nobody_else(void **state)
{
    nl_listen_config config;
    nl_dial_config dial;
    (void)state;
    nl_listen_config_default(&config);
    config.handshake_ns = INT64_C(300000000);
    nl_listener *l = listener_of(&config);
    int silent = connect_to(l);
    nl_dial_config_default(&dial);
    dial.link.wire = NL_WIRE_M;
    dialed client = dial_listener(l, &dial), server = accept_one(l, soon());
    assert_int_equal(client.err, NL_OK);
    assert_int_equal(server.err, NL_OK);                        /* and the silent one is still there */
    dialed d = accept_one(l, soon());
    assert_int_equal(d.err, NL_EHANDSHAKE);
    assert_string_equal(d.report.theirs, "nothing");
    assert_non_null(strstr(d.why.text, "timed out"));
    nl_link_rele(client.link);
    nl_link_rele(server.link);
    close(silent);
    nl_listener_rele(l);
}

static void test_accept_times_out_and_polls(void **state)
{
    nl_listener *l = listener_new();
    (void)state;
    dialed d = accept_one(l, NL_NOW);
    assert_int_equal(d.err, NL_ETIMEOUT);
    int64_t until = nl_now_ns() + 30000000;
    d = accept_one(l, until);
    assert_int_equal(d.err, NL_ETIMEOUT);
    assert_true(nl_now_ns() >= until);
    nl_listener_rele(l);
}

static void test_address_in_use(void **state)
{
    nl_listener *l = listener_new(), *second = NULL;
    nl_listen_config config;
    nl_fault why;
    socklen_t len;
    const struct sockaddr *address = nl_listener_address(l, &len);
    struct sockaddr_in copy;
    (void)state;
    memcpy(&copy, address, sizeof copy);
    nl_listen_config_default(&config);
    assert_int_equal(nl_listener_new(address, len, &config, &second, &why), NL_ESYS);
    assert_int_equal(why.sys_errno, EADDRINUSE);
    assert_non_null(strstr(why.text, "127.0.0.1:"));
    nl_listener_close(l);                                       /* and at once it is free again */
    assert_int_equal(nl_listener_new((struct sockaddr *)&copy, sizeof copy, &config, &second, &why), NL_OK);
    nl_listener_rele(second);
    nl_listener_rele(l);
}

static void *accept_in_thread(void *l)
{
    dialed d = accept_one(l, soon());
    nl_link_rele(d.link);
    return (void *)(uintptr_t)d.err;
}

/* Whatever it meets: acceptors, a handshake under way, a link nobody took. */
static void test_close(void **state)
{
    nl_listener *l = listener_new();
    nl_dial_config config;
    pthread_t threads[3];
    uint8_t byte;
    (void)state;
    int silent = connect_to(l);
    nl_dial_config_default(&config);
    config.link.wire = NL_WIRE_M;
    dialed client = dial_listener(l, &config);                  /* DONE here means: the listener has spoken */
    assert_int_equal(client.err, NL_OK);
    dialed server = accept_one(l, soon());
    for (int i = 0; i < 3; i++)
        pthread_create(&threads[i], NULL, accept_in_thread, l);
    dialed nobodys = dial_listener(l, &config);
    nl_listener_close(l);
    nl_listener_close(l);
    int linked = 0;
    for (int i = 0; i < 3; i++) {
        void *err;
        pthread_join(threads[i], &err);
        linked += (uintptr_t)err == NL_OK;
        assert_true((uintptr_t)err == NL_OK || (uintptr_t)err == NL_ELINKCLOSED);
    }
    assert_in_range(linked, 0, 1);
    assert_int_equal(nl_listener_fd(l), -1);
    assert_int_equal(accept_one(l, soon()).err, NL_ELINKCLOSED);
    assert_int_equal(read_up_to(silent, &byte, 1), 0);          /* it was cut */
    close(silent);
    nl_link_rele(nobodys.link);
    nl_link_rele(client.link);
    nl_link_rele(server.link);
    nl_listener_rele(l);
}

/* Over the backlog peers wait in the kernel; each accept lets one more in, and none is lost. */
static void test_backlog(void **state)
{
    enum { PEERS = 6 };
    nl_listen_config config;
    int fds[PEERS];
    (void)state;
    nl_listen_config_default(&config);
    config.backlog = 2;
    nl_listener *l = listener_of(&config);
    for (int i = 0; i < 3; i++)
        send_hex(fds[i] = connect_to(l), M_OPENING);
    for (int i = 0; i < PEERS; i++) {
        dialed d = accept_one(l, soon());
        assert_int_equal(d.err, NL_OK);
        nl_link_rele(d.link);
        if (i + 3 < PEERS)
            send_hex(fds[i + 3] = connect_to(l), M_OPENING);
    }
    for (int i = 0; i < PEERS; i++)
        close(fds[i]);
    nl_listener_rele(l);
}

static void test_failures_are_bounded(void **state)
{
    enum { PEERS = 80, KEPT = 64 };
    nl_listener *l = listener_new();
    uint8_t byte;
    (void)state;
    for (int i = 0; i < PEERS; i++) {
        int fd = connect_to(l);
        send_hex(fd, "05");
        read_up_to(fd, &byte, 1);                               /* the end: its handshake has failed by now */
        close(fd);
    }
    int reports = 0;
    bool told = false;
    dialed d;
    int fd = connect_to(l);                                     /* a good one comes behind all of them */
    send_hex(fd, M_OPENING);
    while ((d = accept_one(l, soon())).err == NL_EHANDSHAKE) {
        reports++;
        told = told || strstr(d.why.text, "more failed");
    }
    assert_int_equal(d.err, NL_OK);
    assert_in_range(reports, KEPT, KEPT + 1);   /* the last may have come after the first take */
    assert_true(told);
    nl_link_rele(d.link);
    close(fd);
    nl_listener_rele(l);
}

/* valgrind plays the limit itself: it lets the kernel accept, closes what that gave, and says EMFILE. The peer is gone
 * then. */
static bool limit_is_played(void)
{
    const char *preloaded = getenv("LD_PRELOAD");
    return preloaded && strstr(preloaded, "vgpreload");
}

/* S56. Without descriptors accept fails at once and for ever: the listener must rest, and go on when there are some. */
static void test_out_of_descriptors(void **state)
{
    if (limit_is_played())
        skip();
    struct rlimit old, low;
    struct timespec before, after;
    uint8_t bytes[6];
    (void)state;
    nl_listener *l = listener_new();
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);    /* the last one for now */
    int free_fd = dup(fd);
    close(free_fd);
    getrlimit(RLIMIT_NOFILE, &old);
    low = old;
    low.rlim_cur = (rlim_t)free_fd;
    setrlimit(RLIMIT_NOFILE, &low);
    socklen_t len;
    const struct sockaddr *address = nl_listener_address(l, &len);
    int connected = connect(fd, address, len);
    send_hex(fd, M_OPENING);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
    dialed d = accept_one(l, nl_now_ns() + INT64_C(250000000));
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
    setrlimit(RLIMIT_NOFILE, &old);
    assert_int_equal(connected, 0);
    assert_int_equal(d.err, NL_ETIMEOUT);
    int64_t used = (after.tv_sec - before.tv_sec) * INT64_C(1000000000) + (after.tv_nsec - before.tv_nsec);
    assert_true(used < INT64_C(100000000));                     /* a spin would have used all of the 250 ms */
    d = accept_one(l, soon());
    assert_int_equal(d.err, NL_OK);
    assert_int_equal(read_up_to(fd, bytes, 6), 6);
    nl_link_rele(d.link);
    close(fd);
    nl_listener_rele(l);
}

static void test_unix_sockets(void **state)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    nl_listen_config listen_config;
    nl_dial_config config;
    nl_listener *l, *second;
    nl_fault why;
    (void)state;
    snprintf(address.sun_path, sizeof address.sun_path, "/tmp/neolink-test-%d", (int)getpid());
    nl_listen_config_default(&listen_config);
    nl_dial_config_default(&config);
    const struct sockaddr *at = (struct sockaddr *)&address;
    assert_int_equal(nl_listener_new(at, sizeof address, &listen_config, &l, &why), NL_OK);
    assert_int_equal(nl_listener_new(at, sizeof address, &listen_config, &second, &why), NL_ESYS);
    assert_int_equal(why.sys_errno, EADDRINUSE);
    assert_non_null(strstr(why.text, "unix:/tmp/neolink-test-"));
    dialed client = dial_with(at, sizeof address, &config, soon()), server = accept_one(l, soon());
    assert_int_equal(client.err, NL_OK);
    assert_int_equal(server.err, NL_OK);
    nl_link_rele(client.link);
    nl_link_rele(server.link);
    nl_listener_rele(l);
    assert_int_not_equal(access(address.sun_path, F_OK), 0);
}

static void test_socket_options(void **state)
{
    static const struct { int level, name, value; } wanted[] = {
        { SOL_SOCKET, SO_KEEPALIVE, 1 }, { IPPROTO_TCP, TCP_NODELAY, 1 }, { IPPROTO_TCP, TCP_KEEPIDLE, 60 },
        { IPPROTO_TCP, TCP_KEEPINTVL, 10 }, { IPPROTO_TCP, TCP_KEEPCNT, 3 }, { IPPROTO_TCP, TCP_USER_TIMEOUT, 90000 },
    };
    nl_listener *l = listener_new();
    nl_dial_config config;
    (void)state;
    nl_dial_config_default(&config);
    dialed client = dial_listener(l, &config), server = accept_one(l, soon());
    nl_link *ends[] = { client.link, server.link };
    for (int end = 0; end < 2; end++) {
        for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
            int value = -1;
            socklen_t len = sizeof value;
            getsockopt(nl_link_fd(ends[end]), wanted[i].level, wanted[i].name, &value, &len);
            assert_int_equal(value, wanted[i].value);
        }
        nl_link_rele(ends[end]);
    }
    nl_listener_rele(l);
}

typedef struct parent { nl_listener *listener; nl_dialer *dialer; } parent;

static void child(void *arg)
{
    parent *p = arg;
    nl_link *link;
    must_be(accept_one(p->listener, NL_NOW).err, NL_EFORKED);
    must(nl_listener_fd(p->listener) == -1);
    nl_listener_close(p->listener);
    nl_listener_rele(p->listener);
    nl_dialer_cancel(p->dialer);
    must_be(nl_dialer_wait(p->dialer, NL_FOREVER, &link, NULL, NULL), NL_EFORKED);
    nl_dialer_free(p->dialer);
}

static void test_fork(void **state)
{
    nl_listener *l = listener_new();
    parent p = { .listener = l };
    struct sockaddr_in address;
    nl_dial_config config;
    int silent = listen_plain(&address);
    nl_link *link;
    (void)state;
    nl_dial_config_default(&config);
    assert_int_equal(nl_dialer_new((struct sockaddr *)&address, sizeof address, &config, &p.dialer), NL_OK);
    assert_int_equal(nl_dialer_wait(p.dialer, nl_now_ns(), &link, NULL, NULL), NL_ETIMEOUT);
    assert_false(fails(child, &p));
    nl_dialer_free(p.dialer);
    close(silent);
    dialed client = dial_listener(l, &config), server = accept_one(l, soon());
    assert_int_equal(client.err, NL_OK);
    assert_int_equal(server.err, NL_OK);
    nl_link_rele(client.link);
    nl_link_rele(server.link);
    nl_listener_rele(l);
}

/* ---- TLS --------------------------------------------------------------------------------------------------------- */

#ifndef NL_NO_TLS

static nl_tls_ctx *make_ctx(const identity *ca, const identity *id)
{
    folder f = folder_new();
    nl_tls_ctx *ctx;
    nl_fault why;
    pem_certificate(folder_file(&f, "ca"), ca->cert);
    pem_certificate(folder_file(&f, "crt"), id->cert);
    pem_key(folder_file(&f, "key"), id->key, NULL);
    if (nl_tls_ctx_new(folder_file(&f, "ca"), folder_file(&f, "crt"), folder_file(&f, "key"), NULL, NULL, &ctx, &why))
        fail_msg("%s", why.text);
    folder_remove(&f);
    return ctx;
}

static void test_tls(void **state)
{
    identity ca = identity_new(NULL, &(cert_request){ "CA", NULL, -3600, 3600 });
    identity other_ca = identity_new(NULL, &(cert_request){ "other", NULL, -3600, 3600 });
    identity node = identity_new(&ca, &(cert_request){ "node", NULL, -3600, 3600 });
    identity stray = identity_new(&other_ca, &(cert_request){ "stray", NULL, -3600, 3600 });
    nl_tls_ctx *ctx = make_ctx(&ca, &node), *stray_ctx = make_ctx(&ca, &stray);
    nl_listen_config config;
    nl_dial_config dial;
    (void)state;
    nl_listen_config_default(&config);
    nl_dial_config_default(&dial);
    config.link.tls = dial.link.tls = ctx;
    nl_listener *l = listener_of(&config);

    dialed client = dial_listener(l, &dial), server = accept_one(l, soon());
    assert_int_equal(server.err, NL_OK);
    if (client.err != NL_OK)
        fail_msg("%s", client.why.text);
    talk(client.link, server.link);
    nl_link_rele(client.link);
    nl_link_rele(server.link);

    dial.link.tls = stray_ctx;
    client = dial_listener(l, &dial);
    assert_int_equal(client.err, NL_EHANDSHAKE);
    assert_non_null(strstr(client.why.text, "alert"));
    server = accept_one(l, soon());
    assert_int_equal(server.err, NL_EHANDSHAKE);
    assert_non_null(strstr(server.why.text, "certificate"));

    dial.link.tls = NULL;                                       /* a plain dialer at a TLS listener */
    dial.link.wire = NL_WIRE_M;
    client = dial_listener(l, &dial);
    failed(&client, "NEO M protocol 5", "nothing");
    server = accept_one(l, soon());
    assert_string_equal(server.report.theirs, "NEO M without TLS");
    nl_listener_rele(l);

    l = listener_new();                                         /* a TLS dialer at a plain listener */
    dial.link.tls = ctx;
    client = dial_listener(l, &dial);
    assert_int_equal(client.err, NL_EHANDSHAKE);
    server = accept_one(l, soon());
    assert_string_equal(server.report.theirs, "TLS");
    nl_listener_rele(l);

    peer p;                                                     /* a listener that ends in its hello, one in silence */
    dial.link.wire = NL_WIRE_N;
    dial.link.tls = ctx;
    peer_start(&p, "< 11; > 1603030100", NULL, NULL);
    client = dial_with((struct sockaddr *)&p.address, sizeof p.address, &dial, soon());
    assert_int_equal(client.err, NL_EHANDSHAKE);
    assert_non_null(strstr(client.why.text, "closed during the TLS handshake"));
    assert_string_equal(client.report.theirs, "TLS");
    peer_stop(&p);
    int fd = listen_plain(&p.address);
    client = dial_with((struct sockaddr *)&p.address, sizeof p.address, &dial, nl_now_ns() + 50000000);
    assert_int_equal(client.err, NL_ETIMEOUT);
    assert_non_null(strstr(client.why.text, "shaking hands (TLS)"));
    assert_string_equal(client.report.theirs, "nothing");
    close(fd);

    nl_tls_ctx_rele(ctx);
    nl_tls_ctx_rele(stray_ctx);
    identity_free(&ca);
    identity_free(&other_ca);
    identity_free(&node);
    identity_free(&stray);
}

#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dial_neo_nodes),
        cmocka_unit_test(test_dial_m_of_python_2),
        cmocka_unit_test(test_dial_slow_node),
        cmocka_unit_test(test_dial_mismatches),
        cmocka_unit_test(test_dial_nobody),
        cmocka_unit_test(test_dial_times_out),
        cmocka_unit_test(test_dial_goes_on_after_a_signal),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_bad_arguments), cmocka_unit_test(test_bad_arguments_of_a_listener),
        cmocka_unit_test(test_addresses_in_words), cmocka_unit_test(test_errors_in_words),
        cmocka_unit_test(test_dial_meets_listen),
        cmocka_unit_test(test_listen_2016),
        cmocka_unit_test(test_strangers),
        cmocka_unit_test(test_silent_peer_costs_nobody_else),
        cmocka_unit_test(test_accept_times_out_and_polls),
        cmocka_unit_test(test_address_in_use),
        cmocka_unit_test(test_close),
        cmocka_unit_test(test_backlog),
        cmocka_unit_test(test_failures_are_bounded),
        cmocka_unit_test(test_out_of_descriptors),
        cmocka_unit_test(test_unix_sockets),
        cmocka_unit_test(test_socket_options),
        cmocka_unit_test(test_fork),
#ifndef NL_NO_TLS
        cmocka_unit_test(test_tls),
#endif
    };
    return cmocka_run_group_tests_name("dial", tests, NULL, NULL);
}
