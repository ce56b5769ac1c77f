/* The client library has counted the labels that it handed out; here the counts get their classes'
 * names. Before: an epoch has ended (trainer.c). After: cmd_read.c tells it. */
#include "cli/drawn.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>

enum { NAMES_MS = 5000, CLASSES_SHOWN = 12 };

/* The names as a JSON array, or NULL: then labels stand for them. */
static json_t *names_ask(struct sm_loader *loader) {
    int n = sm_classes(loader, NULL, 0, NAMES_MS);
    char *text = n > 0 ? malloc((size_t)n + 1) : NULL;
    json_t *names = NULL;
    if (text != NULL && sm_classes(loader, text, (size_t)n + 1, NAMES_MS) == n)
        names = json_loads(text, 0, NULL);
    free(text);
    return names;
}

/* log pi - log pi' of a class, with which a model's output is recalibrated; 0 where nothing of it
 * is there, null where nothing of it is drawn. all: the sums over classes. */
static void shift_json(const struct sm_class_count *of, const struct sm_class_count *all,
                       struct sm_buf *out) {
    sm_buf_text(out, ",\"log_prior_shift\":");
    if (of->present == 0 || of->drawn == 0) {
        sm_buf_text(out, of->present == 0 ? "0" : "null");
        return;
    }
    const double shift = log((double)of->present / (double)all->present) -
                         log((double)of->drawn / (double)all->drawn);
    sm_buf_printf(out, "%.17g", shift == 0 ? 0 : shift); /* no -0 */
}

void sm_drawn_json(struct sm_loader *loader, struct sm_buf *out) {
    int n = sm_class_counts(loader, NULL, 0);
    struct sm_class_count *counts = n > 0 ? calloc((size_t)n, sizeof *counts) : NULL;
    if (counts == NULL || sm_class_counts(loader, counts, (size_t)n) != n) n = 0;
    json_t *names = n > 0 ? names_ask(loader) : NULL;
    struct sm_class_count all = {0};
    for (int c = 0; c < n; c++) {
        all.present += counts[c].present;
        all.drawn += counts[c].drawn;
    }
    sm_buf_text(out, "[");
    for (int c = 0; c < n; c++) {
        const char *name = json_string_value(json_array_get(names, (size_t)c));
        char number[16];
        snprintf(number, sizeof number, "%d", c);
        sm_buf_text(out, c > 0 ? ",{\"class\":" : "{\"class\":");
        sm_buf_json(out, name != NULL ? name : number);
        sm_buf_printf(out, ",\"present\":%" PRIu64 ",\"drawn\":%" PRIu64 ",\"delivered\":%" PRIu64,
                      counts[c].present, counts[c].drawn, counts[c].last_epoch);
        shift_json(&counts[c], &all, out);
        sm_buf_text(out, "}");
    }
    sm_buf_text(out, "]");
    json_decref(names);
    free(counts);
}

void sm_drawn_print(const char *json, FILE *to) {
    json_t *classes = json_loads(json, 0, NULL), *class;
    size_t i, n = json_array_size(classes);
    json_array_foreach(classes, i, class) {
        if (i == CLASSES_SHOWN) break;
        fprintf(to, "%s%.40s %" JSON_INTEGER_FORMAT, i > 0 ? ", " : "  ",
                json_string_value(json_object_get(class, "class")),
                json_integer_value(json_object_get(class, "delivered")));
    }
    if (n > CLASSES_SHOWN) fprintf(to, ", … and %zu more", n - CLASSES_SHOWN);
    if (n > 0) fputc('\n', to);
    json_decref(classes);
}
