/* Tests of listen.c and opening.c: real sockets over loopback, with dialers of ours and with strangers.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
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

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "certs.h"
#include "kit.h"
#include "peers.h"

#define M_OPENING "92a34e454f05"
#define N_WORD    "00000006"

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
    assert_int_equal(retried(nl_link_recv1(server, soon(), &theirs, &packet)), NL_OK);
    assert_int_equal(packet->code, 1);
    nl_packet_free(packet);
    nl_conn_rele(theirs);
    nl_conn_rele(conn);
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
    assert_int_equal(retried(nl_link_recv1(d.link, soon(), &conn, &packet)), NL_OK);
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

/* More than may shake hands at once, who never end it: the oldest give way, and a good one behind them gets in. */
static void crowd_that_says(const char *hex)
{
    enum { PEERS = 1100 };
    static int fds[PEERS];
    nl_listen_config config;
    bool told = false;
    dialed d;

    nl_listen_config_default(&config);
    config.handshake_ns = NL_FOREVER;
    config.link.wire = NL_WIRE_M;
    nl_listener *l = listener_of(&config);
    for (int i = 0; i < PEERS; i++)
        send_hex(fds[i] = connect_to(l), hex);
    int fd = connect_to(l);
    send_hex(fd, M_OPENING);
    while ((d = accept_one(l, soon())).err == NL_EHANDSHAKE)
        told = told || strstr(d.why.text, "gave way");
    assert_int_equal(d.err, NL_OK);
    assert_true(told);
    nl_link_rele(d.link);
    for (int i = 0; i < PEERS; i++)
        close(fds[i]);
    close(fd);
    nl_listener_rele(l);
}

static void test_the_oldest_gives_way(void **state)
{
    struct rlimit old, high;

    (void)state;
    getrlimit(RLIMIT_NOFILE, &old);
    if (old.rlim_max < 2300)
        skip();
    high = old;
    high.rlim_cur = high.rlim_max;
    setrlimit(RLIMIT_NOFILE, &high);
    crowd_that_says("");
    crowd_that_says("92");
    setrlimit(RLIMIT_NOFILE, &old);
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
    nl_shutdown();          /* the poller has closed what earlier tests left to it, so no number becomes free later */
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
    dial.link.wire = NL_WIRE_M;                                 /* auto may take several connections if starved */
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
        cmocka_unit_test(test_bad_arguments_of_a_listener),
        cmocka_unit_test(test_dial_meets_listen),
        cmocka_unit_test(test_listen_2016),
        cmocka_unit_test(test_strangers),
        cmocka_unit_test(test_silent_peer_costs_nobody_else),
        cmocka_unit_test(test_accept_times_out_and_polls),
        cmocka_unit_test(test_address_in_use),
        cmocka_unit_test(test_close),
        cmocka_unit_test(test_backlog),
        cmocka_unit_test(test_failures_are_bounded),
        cmocka_unit_test(test_the_oldest_gives_way),
        cmocka_unit_test(test_out_of_descriptors),
        cmocka_unit_test(test_unix_sockets),
        cmocka_unit_test(test_socket_options),
        cmocka_unit_test(test_fork),
#ifndef NL_NO_TLS
        cmocka_unit_test(test_tls),
#endif
    };
    return cmocka_run_group_tests_name("listen", tests, NULL, NULL);
}
