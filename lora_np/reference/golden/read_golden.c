/* Reads the golden vectors and checks y = x W^T + b + s (x A^T) B^T, bit for bit. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static struct { char name[32]; double *at; int rows, cols; } arrays[64];
static double *find(const char *name, int count, int *rows, int *cols) {
    for (int i = 0; i < count; i++) if (!strcmp(arrays[i].name, name)) {
        *rows = arrays[i].rows; *cols = arrays[i].cols; return arrays[i].at; }
    return NULL;
}
static int check(int n) { /* 0 if the case in `arrays` is right */
    int N, D, M, R, q; double *b = find("b", n, &q, &q), *s = find("s", n, &q, &q);
    double *x = find("x", n, &N, &D), *W = find("W", n, &M, &D), *A = find("A", n, &R, &D);
    double *B = find("B", n, &M, &R), *y = find("y", n, &N, &M);
    for (int i = 0; i < N; i++) for (int m = 0; m < M; m++) {
        double sum = b ? b[m] : 0, low = 0;
        for (int d = 0; d < D; d++) sum += x[i * D + d] * W[m * D + d];
        for (int r = 0; r < R; r++) for (int d = 0; d < D; d++) low += B[m * R + r] * A[r * D + d] * x[i * D + d];
        if (sum + *s * low != y[i * M + m]) return 1; }
    return 0;
}
int main(int argc, char **argv) {
    char path[4096], line[8192], now[64] = "", id[64], name[32]; long offset; int n = 0, cases = 0, wrong = 0;
    snprintf(path, sizeof path, "%s/data.bin", argv[argc - 1]); FILE *f = fopen(path, "rb");
    if (!f) { fprintf(stderr, "no %s; usage: read_golden FOLDER\n", path); return 2; }
    fseek(f, 0, SEEK_END); char *data = malloc(ftell(f)); size_t size = ftell(f); rewind(f);
    if (fread(data, 1, size, f) != size) return 2;
    snprintf(path, sizeof path, "%s/index.json", argv[argc - 1]); FILE *index = fopen(path, "r");
    while (index && fgets(line, sizeof line, index)) {
        if (sscanf(line, "{\"case\": \"%63[^\"]\", \"name\": \"%31[^\"]\", %*[^,], %*[^,], \"offset\": %ld", id, name, &offset) != 3) continue;
        if (strcmp(id, now)) { if (n) { cases++; wrong += check(n); } n = 0; strcpy(now, id); }
        if (strncmp(id, "linear-plain", 12)) continue;
        arrays[n].rows = arrays[n].cols = 1; strcpy(arrays[n].name, name); arrays[n].at = (double *)(data + offset);
        sscanf(strstr(line, "\"shape\": [") + 10, "%d, %d", &arrays[n].rows, &arrays[n].cols); n++; }
    printf("%d cases, %d wrong\n", cases, wrong); return wrong || !cases;
}
