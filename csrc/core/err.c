/* Names of errors, and how many locks a thread holds.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "neolink.h"

#include "sys.h"

#ifdef NL_FAULTS
atomic_long sys_live;
#endif

#ifdef SYS_LOCKS
_Thread_local unsigned sys_locks;
#define LOCKS_HELD sys_locks
#else
#define LOCKS_HELD 0
#endif

unsigned nl_locks_held(void) { return LOCKS_HELD; }

const char *nl_err_name(nl_err err)
{
    static const char *const names[NL_ERR_COUNT] = {
        [NL_OK] = "NL_OK", [NL_EINTR] = "NL_EINTR", [NL_ETIMEOUT] = "NL_ETIMEOUT",
        [NL_ELINKCLOSED] = "NL_ELINKCLOSED", [NL_ELINKDOWN] = "NL_ELINKDOWN", [NL_EPROTO] = "NL_EPROTO",
        [NL_ECONNCLOSED] = "NL_ECONNCLOSED", [NL_ENOTACCEPTING] = "NL_ENOTACCEPTING", [NL_ETOOBIG] = "NL_ETOOBIG",
        [NL_ETOOMANY] = "NL_ETOOMANY", [NL_EENCODE] = "NL_EENCODE", [NL_EFORKED] = "NL_EFORKED",
        [NL_ENOMEM] = "NL_ENOMEM", [NL_EINVAL] = "NL_EINVAL", [NL_ESYS] = "NL_ESYS", [NL_EHANDSHAKE] = "NL_EHANDSHAKE",
        [NL_ECANCELLED] = "NL_ECANCELLED",
    };

    return (unsigned)err < NL_ERR_COUNT && names[err] ? names[err] : "unknown nl_err";
}
