/* Tests of dial.c and opening.c: real sockets over loopback, to peers that only know a script.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "neolink.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "kit.h"
#include "opening.h"
#include "peers.h"

#define QUIET_NS INT64_C(100000000)     /* of hs.c */
#define M_OPENING "92a34e454f05"
#define M_BIN_OPENING "92c4034e454f05"
#define N_WORD    "00000006"

/* A dialer that listens first takes QUIET_NS of silence for an answer. A peer that was to speak, or to hang up, at once
 * and got no processor for so long has played another part than its own. */
static bool missed_its_cue(peer *p)
{
    wait_until(atomic_load(&p->begun) == atomic_load(&p->accepted));
    return atomic_load(&p->lag_ns) >= QUIET_NS;
}

static dialed dial_peer(peer *p, nl_wire wire)
{
    nl_dial_config config;
    dialed d;
    nl_dial_config_default(&config);
    config.link.wire = wire;
    d = dial_with((const struct sockaddr *)&p->address, sizeof p->address, &config, soon());
    for (int again = 0; missed_its_cue(p) && again < 100; again++) {
        if (d.link)
            nl_link_rele(d.link);
        peer_stop(p);
        peer_run(p);
        d = dial_with((const struct sockaddr *)&p->address, sizeof p->address, &config, soon());
    }
    return d;
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

/* What came in time is heard, however late somebody looks. */
static void test_late_listening(void **state)
{
    nl_link_config config;
    nl_opening o;
    int fd[2];
    (void)state;
    nl_link_config_default(&config);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
    assert_int_equal(nl_opening_init(&o, fd[0], NL_CLIENT, NL_WIRE_AUTO, &config), NL_OK);
    send_hex(fd[1], N_WORD);
    o.until = 0;
    assert_int_equal(nl_opening_step(&o), NL_OPENING_DONE);
    assert_int_equal(o.hs.wire, NL_WIRE_N);
    nl_opening_fini(&o);
    close(fd[1]);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dial_neo_nodes),
        cmocka_unit_test(test_dial_m_of_python_2),
        cmocka_unit_test(test_dial_slow_node),
        cmocka_unit_test(test_dial_mismatches),
        cmocka_unit_test(test_late_listening),
        cmocka_unit_test(test_dial_nobody),
        cmocka_unit_test(test_dial_times_out),
        cmocka_unit_test(test_dial_goes_on_after_a_signal),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_bad_arguments),
        cmocka_unit_test(test_addresses_in_words),
        cmocka_unit_test(test_errors_in_words),
    };
    return cmocka_run_group_tests_name("dial", tests, NULL, NULL);
}
