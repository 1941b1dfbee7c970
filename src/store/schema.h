/* schema.h - the schema's text and the two numbers that mark a file as a store. */
#ifndef CT_STORE_SCHEMA_H
#define CT_STORE_SCHEMA_H

enum {
    CT_STORE_APPLICATION_ID = 0x43744F31, /* "CtO1", in the file's header */
    CT_STORE_SCHEMA_VERSION = 1,
};

extern const char ct_store_schema[];

#endif
