/* no_cuda.c - the CUDA backend of a program that was built without it. */
#include "op/op.h"

const ct_ops *ct_ops_cuda(void)
{
    return NULL;
}
