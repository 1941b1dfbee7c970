/* devices.h - lists of devices: where the copies of a model lie that compute side by side.
 *
 * Owns what a list says, and which copies `cuda:all` makes of the GPUs there. A name in it is opaque here
 * but for its `+`, which joins the places of one copy; registry.c knows what it stands for.
 */
#ifndef CT_MODEL_DEVICES_H
#define CT_MODEL_DEVICES_H

#include <stddef.h>
#include <stdint.h>

#include <cortado/engine.h>

enum { CT_DEVICES_MAX = 64, CT_DEVICE_NAME = 128 };

/* Of each copy of the model, where it is. */
typedef struct ct_devices {
    char names[CT_DEVICES_MAX][CT_DEVICE_NAME];
    size_t n;
} ct_devices;

/* What a copy of a model takes of GPUs, in bytes. */
typedef struct ct_device_needs {
    int64_t shared;   /* weights and states, divided among the GPUs of a copy */
    int64_t each;     /* beside it on every one of them, for each lane: as many as they are */
    int64_t unevenly; /* more than an even part of what is shared, where it is divided */
} ct_device_needs;

/* Reads "D,D,..."; a part that begins with a digit is a number of the kind before it ("cuda:0,1").
 * NULL: "cpu". CT_ERR_USAGE for an empty part, too many, or "cuda:all", which ct_devices_choose takes. */
ct_status ct_devices_parse(const char *text, ct_devices *out, ct_err *err) CT_CHECK;
/* As many copies as fit into GPUs 0 .. n-1 with so many bytes free, each on as few GPUs as hold one:
 * "cuda:0", "cuda:1", or "cuda:0+1". CT_ERR_MEMORY if all together are too few. */
ct_status ct_devices_fill(const int64_t *free_bytes, int n, const ct_device_needs *needs,
                          ct_devices *out, ct_err *err) CT_CHECK;
/* What the options' device says for the model in `dir`; of "cuda:all" the GPUs are asked what is free. */
ct_status ct_devices_choose(const char *dir, const ct_model_options *options, ct_devices *out,
                            ct_err *err) CT_CHECK;
/* The same where one copy is wanted, the first of "cuda:all". CT_ERR_USAGE for a list. dir NULL: no
 * model, one GPU. */
ct_status ct_device_choose_one(const char *dir, const ct_model_options *options,
                               char out[CT_DEVICE_NAME], ct_err *err) CT_CHECK;
/* Places of a copy, each of which can compute while the others do: 1, or as many as `+` joins. */
size_t ct_device_places(const char *name);

#endif
