/* Both convolutions of the LeNet with bias, ReLU and max-pooling, forward and backward.
 *
 * One image goes through all networks while it is in the cache. Channels are the innermost axis,
 * so a row of a 5x5 kernel is one run of 15 or 30 floats, and only the member of a pooling window
 * that is the maximum is looked at on the way back: a quarter of the positions, of which those
 * behind a closed ReLU are left out too.
 *
 * Layouts, all float32 unless said otherwise (m networks, n images):
 *   images   [n][PIXELS]          32 rows, 32 columns, 3 channels, and room to read beyond the end
 *   kernels1 [blocks][75][LANES]  by (row, column, input channel); lanes: 5 networks of 6 channels
 *   bias1    [blocks][LANES]
 *   kernels2 [m][150][16]         by (row, column, input channel)
 *   bias2    [m][16]
 *   back2    [m][16][5][32]       the same kernels by output channel and row, filled up with 0
 *   hidden1  [m][n][HIDDEN1]      14 rows, 14 columns, 6 channels, and room
 *   hidden2  [m][n][400]          16 channels, 5 rows, 5 columns: as the next layer reads them
 *   member1, member2              of the same shapes, int8: which of its window was the maximum
 */

#include <stdint.h>
#include <string.h>

#define PIXELS 3088
#define HIDDEN1 1184
#define NETWORKS 5 /* of a block */
#define LANES 32

typedef float floats __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t ints __attribute__((vector_size(64)));
typedef int8_t bytes __attribute__((vector_size(16), aligned(1), may_alias));

#define INLINE static inline __attribute__((always_inline))
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
/* The processor decides which of them runs, so that one file serves all machines of a cluster. */
#define FOR_ANY_PROCESSOR __attribute__((target_clones("avx512f", "fma", "default")))
#else
#define FOR_ANY_PROCESSOR
#endif

INLINE ints choose(ints condition, ints yes, ints no) {
  return (condition & yes) | (~condition & no);
}

/* The maximum of a window, the first of equals, after bias and ReLU; NaN stays NaN. */
INLINE void pool(const floats window[4], const floats *bias, floats *value, bytes *member) {
  floats most = window[0];
  ints which = {0};
  for (int i = 1; i < 4; i++) {
    ints higher = (ints)(window[i] > most);
    which = choose(higher, (ints){0} + i, which);
    most = (floats)choose(higher, (ints)window[i], (ints)most);
  }
  most += *bias;
  *value = (floats)(~(ints)(most < 0.0f) & (ints)most);
  *member = __builtin_convertvector(which, bytes);
}

/* One block of networks on one image: images -> hidden1. */
INLINE void first(const float *image, const float *kernels, const float *bias, int networks,
                  long stride, float *hidden, int8_t *member) {
  for (int row = 0; row < 14; row++)
    for (int column = 0; column < 14; column += 2) {
      floats sum[2][2][4] = {0}; /* [half of the lanes][window][member] */
      const float *corner = image + (2 * row * 32 + 2 * column) * 3;
      for (int i = 0; i < 5; i++)
        for (int j = 0; j < 15; j++) {
          const float *kernel = kernels + (i * 15 + j) * LANES, *pixel = corner + i * 96 + j;
          floats low = *(const floats *)kernel, high = *(const floats *)(kernel + 16);
#pragma GCC unroll 2
          for (int w = 0; w < 2; w++)
#pragma GCC unroll 4
            for (int k = 0; k < 4; k++) {
              float x = pixel[(k / 2) * 96 + (2 * w + k % 2) * 3];
              sum[0][w][k] += low * x;
              sum[1][w][k] += high * x;
            }
        }
      for (int w = 0; w < 2; w++) {
        float values[LANES];
        int8_t members[LANES];
        for (int half = 0; half < 2; half++)
          pool(sum[half][w], (const floats *)(bias + 16 * half), (floats *)(values + 16 * half),
               (bytes *)(members + 16 * half));
        long at = (row * 14 + column + w) * 6;
        for (int network = 0; network < networks; network++) {
          memcpy(hidden + network * stride + at, values + network * 6, 6 * sizeof(float));
          memcpy(member + network * stride + at, members + network * 6, 6);
        }
      }
    }
}

/* One network on one image: hidden1 -> hidden2. */
INLINE void second(const float *hidden1, const float *kernels, const floats *bias, float *hidden2,
                   int8_t *member2) {
  for (int row = 0; row < 5; row++) {
    floats sum[5][4] = {0}; /* [window][member] */
    for (int i = 0; i < 5; i++)
      for (int j = 0; j < 30; j++) {
        floats kernel = *(const floats *)(kernels + (i * 30 + j) * 16);
        const float *corner = hidden1 + (2 * row + i) * 84 + j;
#pragma GCC unroll 5
        for (int w = 0; w < 5; w++)
#pragma GCC unroll 4
          for (int k = 0; k < 4; k++) sum[w][k] += kernel * corner[(k / 2) * 84 + (2 * w + k % 2) * 6];
      }
    for (int w = 0; w < 5; w++) {
      floats values;
      bytes members;
      pool(sum[w], bias, &values, &members);
      for (int c = 0; c < 16; c++) {
        hidden2[c * 25 + row * 5 + w] = values[c];
        member2[c * 25 + row * 5 + w] = members[c];
      }
    }
  }
}

FOR_ANY_PROCESSOR
void forward(const float *images, long n, long m, const float *kernels1, const float *bias1,
             const float *kernels2, const float *bias2, float *hidden1, int8_t *member1,
             float *hidden2, int8_t *member2) {
  for (long image = 0; image < n; image++)
    for (long start = 0, block = 0; start < m; start += NETWORKS, block++) {
      int networks = m - start < NETWORKS ? (int)(m - start) : NETWORKS;
      long at = (start * n + image) * HIDDEN1;
      first(images + image * PIXELS, kernels1 + block * 75 * LANES, bias1 + block * LANES, networks,
            n * HIDDEN1, hidden1 + at, member1 + at);
      for (long network = start; network < start + networks; network++) {
        long sample = network * n + image;
        second(hidden1 + sample * HIDDEN1, kernels2 + network * 150 * 16,
               (const floats *)(bias2 + network * 16), hidden2 + sample * 400,
               member2 + sample * 400);
      }
    }
}

/* Where the gradient is not 0: positions and values, and their number. */
INLINE int open(const float *grad, const float *hidden, int length, int step, int *at, float *of) {
  int count = 0;
  for (int i = 0; i < length; i++) {
    float g = hidden[i * step] <= 0.0f ? 0.0f : grad[i * step];
    at[count] = i;
    of[count] = g;
    count += g != 0.0f;
  }
  return count;
}

/* One network on one image: the gradients of the second convolution, and that of hidden1. */
INLINE void second_back(const float *hidden1, const float *back2, const float *hidden2,
                        const int8_t *member2, const float *grad2, float *grad1,
                        float *grad_kernels, float *grad_bias) {
  memset(grad1, 0, HIDDEN1 * sizeof(float));
  for (int c = 0; c < 16; c++) {
    int at[25];
    float of[25];
    int count = open(grad2 + c * 25, hidden2 + c * 25, 25, 1, at, of);
    floats sum[5][2], kernel[5][2];
    for (int i = 0; i < 5; i++)
      for (int h = 0; h < 2; h++) {
        sum[i][h] = *(floats *)(grad_kernels + (c * 5 + i) * 32 + 16 * h);
        kernel[i][h] = *(const floats *)(back2 + (c * 5 + i) * 32 + 16 * h);
      }
    for (int o = 0; o < count; o++) {
      int k = member2[c * 25 + at[o]];
      int corner = ((2 * (at[o] / 5) + k / 2) * 14 + 2 * (at[o] % 5) + k % 2) * 6;
      grad_bias[c] += of[o];
#pragma GCC unroll 5
      for (int i = 0; i < 5; i++)
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
          sum[i][h] += *(const floats *)(hidden1 + corner + i * 84 + 16 * h) * of[o];
          *(floats *)(grad1 + corner + i * 84 + 16 * h) += kernel[i][h] * of[o];
        }
    }
    for (int i = 0; i < 5; i++)
      for (int h = 0; h < 2; h++) *(floats *)(grad_kernels + (c * 5 + i) * 32 + 16 * h) = sum[i][h];
  }
}

/* One network on one image: the gradients of the first convolution. */
INLINE void first_back(const float *image, const float *hidden1, const int8_t *member1,
                       const float *grad1, float *grad_kernels, float *grad_bias) {
  for (int c = 0; c < 6; c++) {
    int at[196];
    float of[196];
    int count = open(grad1 + c, hidden1 + c, 196, 6, at, of);
    floats sum[5];
    for (int i = 0; i < 5; i++) sum[i] = *(floats *)(grad_kernels + (c * 5 + i) * 16);
    for (int o = 0; o < count; o++) {
      int k = member1[at[o] * 6 + c];
      const float *corner =
          image + ((2 * (at[o] / 14) + k / 2) * 32 + 2 * (at[o] % 14) + k % 2) * 3;
      grad_bias[c] += of[o];
#pragma GCC unroll 5
      for (int i = 0; i < 5; i++) sum[i] += *(const floats *)(corner + i * 96) * of[o];
    }
    for (int i = 0; i < 5; i++) *(floats *)(grad_kernels + (c * 5 + i) * 16) = sum[i];
  }
}

/* Adds to grad_kernels1 [m][6][5][16], grad_bias1 [m][6], grad_kernels2 [m][16][5][32] and
 * grad_bias2 [m][16]; the last lane or two of a row of a kernel mean nothing. Images of weight 0
 * [m][n] in a network are not looked at. */
FOR_ANY_PROCESSOR
void backward(const float *images, long n, long m, const float *weights, const float *back2,
              const float *hidden1, const int8_t *member1, const float *hidden2,
              const int8_t *member2, const float *grad2, float *grad_kernels1, float *grad_bias1,
              float *grad_kernels2, float *grad_bias2) {
  for (long network = 0; network < m; network++)
    for (long image = 0; image < n; image++) {
      long sample = network * n + image;
      if (weights[sample] == 0.0f) continue;
      float grad1[HIDDEN1];
      second_back(hidden1 + sample * HIDDEN1, back2 + network * 16 * 160, hidden2 + sample * 400,
                  member2 + sample * 400, grad2 + sample * 400, grad1,
                  grad_kernels2 + network * 16 * 160, grad_bias2 + network * 16);
      first_back(images + image * PIXELS, hidden1 + sample * HIDDEN1, member1 + sample * HIDDEN1,
                 grad1, grad_kernels1 + network * 6 * 80, grad_bias1 + network * 6);
    }
}
