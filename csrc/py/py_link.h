/* What py_link.c and py_many.c share: the methods of NodeLink live in both.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef NLPY_LINK_H
#define NLPY_LINK_H

#include "py_wait.h"

/* False with an exception when __init__ has not succeeded. */
bool nlpy_link_is_ready(nlpy_link *self);

PyObject *nlpy_link_ask_many(nlpy_link *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *nlpy_link_notify_many(nlpy_link *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
extern const char nlpy_link_ask_many_doc[], nlpy_link_notify_many_doc[];

#endif
