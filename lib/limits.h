/* Every limit on what comes from outside, in one place. A limit is a promise to the machine, so
 * each has a name, a unit and a reason. PROTOCOL.md and `shardmill doctor` print this table. */
#pragma once

#include <stdint.h>

#define SM_LIMITS(X)                                                                            \
    X(YAML_BYTES, 1 << 20, "bytes of a pipeline file")                                          \
    X(YAML_DEPTH, 16, "levels of nesting in a pipeline file")                                   \
    X(YAML_NODES, 10000, "values in a pipeline file")                                           \
    X(OPS, 64, "ops in a chain, nested ones included")                                          \
    X(CLASSES, 1 << 20, "classes of a dataset")                                                 \
    X(CLASS_COUNTS, 1 << 15, "classes of which a job tells its trainers the counts")            \
    X(SPEC_NAMES_BYTES, 64 << 10, "bytes of the classes' names that a job itself holds")        \
    X(CLASS_NAMES_BYTES, 64 << 20, "bytes of all classes' names, for a trainer")                \
    X(PATH_BYTES, 4096, "bytes of a path")                                                      \
    X(LIST_LINE_BYTES, 8192, "bytes of a line in a list file")                                  \
    X(CSV_FIELD_BYTES, 1 << 20, "bytes of a field of a CSV file")                               \
    X(CSV_ROW_BYTES, 8 << 20, "bytes of a row of a CSV file")                                   \
    X(NPY_HEADER_BYTES, 64 << 10, "bytes of the header of an .npy file")                        \
    X(TABLE_FILES, 1 << 16, "files of a table")                                                 \
    X(TABLE_COLUMNS, 1 << 16, "columns of a table")                                             \
    X(TABLE_ROWS, INT32_MAX, "rows of a table")                                                 \
    X(TABLE_BAD_ROWS, 100000, "rows of a table that cannot be read")                            \
    X(TABLE_CATEGORIES, 1 << 20, "categories of a column")                                      \
    X(TABLE_STRINGS_BYTES, 1 << 30, "bytes of a table's categories and reasons")                \
    X(SAMPLE_BYTES, 64 << 20, "bytes of one encoded sample")                                    \
    X(IMAGE_SIDE, 32768, "pixels of an image's side")                                           \
    X(IMAGE_PIXELS, 100000000, "pixels of an image")                                            \
    X(IMAGE_BANDS, 5, "bands of an image")                                                      \
    X(RESULT_BYTES, 256 << 20, "bytes of one sample's result")                                  \
    X(DRAWS_BYTES, 16384, "bytes of JSON that tell a sample's draws")                           \
    X(CAGE_MEMORY_BYTES, 1200 << 20, "address space of a cage")                                 \
    X(SAMPLE_CPU_MS, 5000, "processor time of one sample in its cage")                          \
    X(SAMPLE_WALL_MS, 60000, "wall time of one sample in its cage")                             \
    X(SAMPLE_CAGES, 3, "cages that one sample may kill before it is quarantined")               \
    X(CAGE_SAMPLES, 20000, "samples after which a cage is replaced")                            \
    X(SUBSTITUTE_TRIES, 64, "neighbours tried in place of a quarantined sample")                \
    X(MESSAGE_BYTES, 1 << 20, "bytes of a control message")                                     \
    X(UNPACK_BYTES, 8 << 20, "bytes that unpacking a control message may allocate")             \
    X(LEASE_SAMPLES, 4096, "samples of one lease")                                              \
    X(SHARD_SAMPLES, 1 << 20, "samples of one shard")                                           \
    X(JOB_SAMPLES_LOG2, 44, "samples of one job, as a power of two")                            \
    X(JOB_SHARDS, 1 << 24, "shards of one job")                                                 \
    X(SHARD_PARTS, 1 << 15, "leases that one shard is cut into")                                \
    X(NEIGHBORS, 256, "neighbours of a row that SMOTE keeps")                                   \
    X(NEIGHBOR_BYTES, 256 << 20, "bytes of rows and distances while neighbours are looked for") \
    X(COPIES, 1 << 16, "copies of each sample")                                                 \
    X(JOBS, 256, "jobs that a broker holds")                                                    \
    X(WORKERS, 4096, "workers that a broker holds")                                             \
    X(WORKER_LEASES, 4, "leases that one worker holds")                                         \
    X(JOB_ID_BYTES, 128, "bytes of a job's id")                                                 \
    X(NAME_BYTES, 128, "bytes of a worker's or job's name, for people")                         \
    X(FINGERPRINT_BYTES, 512, "bytes of a worker's fingerprint")                                \
    X(TEXT_BYTES, 1000, "bytes of a reason why a lease failed")                                 \
    X(QUARANTINE_TEXT_BYTES, 160, "bytes of the reason why a sample is quarantined")            \
    X(TAR_HEADERS_BYTES, 64 << 10, "bytes of extended headers of a tar member")                 \
    X(BATCH_BYTES, 1 << 30, "bytes of one batch")                                               \
    X(BATCH_SAMPLES, 1 << 16, "samples of one batch")                                           \
    X(TRAINERS, 1024, "trainers that a broker holds")                                           \
    X(PIECE_BYTES, 1 << 20, "bytes of one frame between hosts")                                 \
    X(ALLOWED_KEYS, 65536, "keys that may connect to a broker or worker")                       \
    X(FEATURES, 1 << 17, "columns of a row")                                                    \
    X(ARTIFACT_BYTES, 1 << 30, "bytes of what one op has learned")                              \
    X(FIT_ROUNDS, 100000, "rounds of one fit")                                                  \
    X(COVARIANCE_BYTES, 512 << 20, "bytes of the covariance of one PCA")                        \
    X(CENTER_CELLS, 1 << 24, "numbers of all centres of one KMeans")                            \
    X(INDEX_MIB, 1 << 18, "MiB of a dataset's index that is not on the worker's host")          \
    X(KEPT_MIB, 1 << 16, "MiB of files that a broker keeps for its jobs")                       \
    X(KEPT_FILES, 1 << 14, "files that a broker keeps for its jobs")                            \
    X(KEPT_OPEN, 64, "files that a broker is being sent at a time")                             \
    X(FILE_PUT_BYTES, 512 << 10, "bytes of a file that one message brings to a broker")         \
    X(FILE_GET_BYTES, 256 << 10, "bytes of a file that one message of a broker brings")         \
    X(LOCK_BYTES, 64 << 20, "bytes of a lock file")                                             \
    X(SLICES, 1 << 16, "slices of an expansion")

enum {
#define X(name, value, doc) SM_MAX_##name = (value),
    SM_LIMITS(X)
#undef X
};
