/* A training loop in C: reads one epoch of a job, and may be stopped and started again.
 *
 *   cc example.c $(pkg-config --cflags --libs shardmill) -o example
 *   ./example tcp://127.0.0.1:5570 JOB [CHECKPOINT]
 *
 * CHECKPOINT is a file with the token of the last step; a real loop keeps it beside its model. */
#include <shardmill.h>

#include <stdio.h>
#include <stdlib.h>

static int failed(const struct sm_loader *loader) {
    fprintf(stderr, "example: %s\n", sm_last_error(loader));
    return 1;
}

/* Stands for the step of training: the mean of all elements (of half floats: of their bytes), so
 * that every byte is used. */
static double train(const struct sm_batch_view *v) {
    const size_t n = v->type == SM_FLOAT32   ? v->data_bytes / sizeof(float)
                     : v->type == SM_FLOAT64 ? v->data_bytes / sizeof(double)
                                             : v->data_bytes;
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += v->type == SM_FLOAT32   ? (double)((const float *)v->data)[i]
               : v->type == SM_FLOAT64 ? ((const double *)v->data)[i]
                                       : (double)((const unsigned char *)v->data)[i];
    return sum / (double)n;
}

static void checkpoint(const char *path, const char *token) {
    FILE *file = path != NULL ? fopen(path, "w") : NULL;
    if (file == NULL) return;
    fputs(token, file);
    fclose(file);
}

int main(int argc, char **argv) {
    if (argc < 3) return fprintf(stderr, "usage: example BROKER JOB [CHECKPOINT]\n"), 2;
    char token[256] = "";
    const char *path = argc > 3 ? argv[3] : NULL;
    FILE *file = path != NULL ? fopen(path, "r") : NULL;
    if (file != NULL && fgets(token, sizeof token, file) == NULL) token[0] = 0;
    if (file != NULL) fclose(file);

    struct sm_loader *loader;
    struct sm_open_options options = {
        .api_version = SM_API_VERSION, .broker = argv[1], .job = argv[2], .token = token};
    if (sm_open(&loader, &options) != 0) return failed(NULL);

    struct sm_batch_view view;
    int rc;
    while ((rc = sm_next(loader, &view, 30000)) == SM_NEXT_BATCH) {
        double mean = train(&view);
        printf("epoch %u step %llu: %u samples (%u padding) of", view.epoch,
               (unsigned long long)view.step, view.count, view.padding);
        for (int i = 1; i < view.ndim; i++) /* pictures have three sides, rows have columns */
            printf(" %lld", (long long)view.shape[i]);
        printf(", first label %lld, mean %.3f, %s\n", (long long)view.label[0], mean, view.digest);
        if (sm_release(loader, &view) != 0) return failed(loader);
        if (sm_state(loader, token, sizeof token) < 0) return failed(loader);
        checkpoint(path, token); /* first the checkpoint, then the commit */
        if (sm_commit(loader, token, 10000) != 0) return failed(loader);
    }
    if (rc < 0) return failed(loader);
    puts(rc == SM_NEXT_EPOCH_END ? "end of the epoch" : "end of the job");
    sm_close(&loader);
    return 0;
}
