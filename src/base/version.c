/* version.c - version and commit of this build; ct_version.h is made by cmake/version.cmake. */
#include "base/version.h"

#include "ct_version.h"

const char *ct_version(void)
{
    return CT_VERSION;
}

const char *ct_commit(void)
{
    return CT_COMMIT;
}
