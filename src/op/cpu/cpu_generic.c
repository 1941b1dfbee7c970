/* cpu_generic.c - the kernels of table.h, compiled for the target's baseline. */
#include "op/cpu/cpu.h"

#define CT_ISA generic
#include "op/cpu/table.h"
