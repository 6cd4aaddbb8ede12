// SPDX-License-Identifier: Apache-2.0
// net: the picture networks of the codec, analysis (picture -> latents) and synthesis (latents ->
// picture).
//
// Float32, and every rounding written out: the same pixels at every instruction set level and
// number of threads. fma rounds once; +, - and x round each; nothing else is fused or reordered.
//
// A layer reads activations [h, w, C], zero outside the grid, and gives [h', w', O].
//
//   dense     kernel k x k, stride s: 1 x 1, or 3 x 3 at stride 2
//     s = +0; for ky, kx, c:  s = fma(x[s y + ky - k/2, s x + kx - k/2, c], w[o, c, ky, kx], s)
//     result s + bias[o]
//
//   conv3     3 x 3 at stride 1 by Winograd's F(4 x 4, 3 x 3), a quarter of the products. h and w
//             are multiples of 4. For the tile of outputs (4 i .. 4 i + 3, 4 j .. 4 j + 3), with d
//             the 6 x 6 inputs from (4 i - 1, 4 j - 1) on:
//     V[c] = input(d[c])       on each column of d, then on each row of what came out; 36 values
//     U[o, c] = kernel(w[o, c]) on columns, then rows, in double, then rounded to float
//     M[p, o]:  s = +0; for c:  s = fma(V[c][p], U[o, c][p], s)
//     Y[o] = output(M[.., o])  on columns, then rows; 16 values
//     result Y + bias[o]
//
//   input  (d0 .. d5):  a = fma(-4, d2, d4), b = fma(-4, d1, d3), e = d4 - d2, f = d3 - d1 gives
//                       fma(4, d0, fma(-5, d2, d4)), a + b, a - b, fma(2, f, e), fma(-2, f, e),
//                       fma(4, d1, fma(-5, d3, d5))
//   kernel (a, b, c):   a / 4, -((a + b) + c) / 6, -((a - b) + c) / 6, ((a + 2 b) + 4 c) / 24,
//                       ((a - 2 b) + 4 c) / 24, c
//   output (m0 .. m5):  s = m1 + m2, d = m1 - m2, S = m3 + m4, D = m3 - m4 gives
//                       (m0 + s) + S, fma(2, D, d), fma(4, S, s), fma(8, D, d) + m5
//
//   leaky(v) = max(v, 0.1f v)
//   block    x + conv3(leaky(conv3(x))), the sum rounded once more
//
// Pictures and latents pass through the layers in units of 64. Analysis:
//   planes   = C (rgb - 128) / 64, continued at the edges to multiples of 64 pixels
//   f        = conv3(leaky(blocks(dense_2(leaky(blocks(conv3(unshuffle8(planes))))))))
//   latents  = 64 (dense(unshuffle16(planes)) + f)
// Synthesis, with t = 2 (log2 D - 8) for the quantiser step D:
//   g        = dense(leaky(blocks(conv3([latents / 64, t]))));  features = shuffle2(g)
//   known    = leaky(blocks(features))
//   planes   = shuffle16(dense(latents / 64)) + shuffle8(conv3(known))
// and, where the weights have a picture filter, at half of the resolution,
//   seen     = shuffle4(dense(known)) + conv3(unshuffle2(planes))
//   planes   = planes + shuffle2(conv3(leaky(blocks(seen))))
//   rgb      = round(C' (64 planes) + 128), ties to even, within 0 .. 255
// With the perceptual head and realism r in (0, 1], noise n8 at 1/8 of the resolution and n1 at all
// of it (otcuda/codec/noise.py), planes x0:
//   hidden   = leaky(blocks(conv3([features, n8])));  s = shuffle8(conv3(hidden))
//   gain     = dense(hidden) between positions: pixel p lies at max(0, 2 p - 7) / 16; the lower
//              position times (1 - share) plus the higher times share, first along rows
//   texture  = s + conv3(leaky(conv3([s, x0, gain n1])))
//   planes   = x0 + r d where r < 0.5, x1 - d (1 - r) elsewhere;  x1 = x0 + texture, d = x1 - x0
// C' p is ((C[0] p0 + C[1] p1) + C[2] p2), C v alike; no fma in either.
//
// Source of the transforms: Lavin & Gray, Fast algorithms for convolutional neural networks, CVPR
// 2016. Second implementation: python_tests/decoders/net.py. The same layers in torch:
// otcuda/codec/networks.py.
#pragma once

#include <cstdint>

namespace otcuda {

constexpr int64_t kNetTile = 4;     // outputs along the edge of a tile of conv3
constexpr int64_t kNetWindow = 6;   // inputs along the edge of its window
constexpr int64_t kNetPoints = 36;  // products of a window
constexpr int64_t kNetStride = 16;  // pixels a latent position
constexpr int64_t kNetAlign = 64;   // pixels to which pictures are continued
constexpr float kNetScale = 64.0f;
constexpr float kNetSlope = 0.1f;

// Luma (1, 1, 1), R - B and R - 2 G + B, orthonormal.
constexpr float kNetColour[3][3] = {
    {0.57735026918962576451f, 0.57735026918962576451f, 0.57735026918962576451f},
    {0.70710678118654752440f, 0.0f, -0.70710678118654752440f},
    {0.40824829046386301637f, -0.81649658092772603273f, 0.40824829046386301637f}};

// kernel(a, b, c) of conv3; results lie `apart` doubles from each other.
inline void net_kernel_transform(double a, double b, double c, double* u, int64_t apart) {
  u[0] = a / 4;
  u[apart] = -((a + b) + c) / 6;
  u[2 * apart] = -((a - b) + c) / 6;
  u[3 * apart] = ((a + 2 * b) + 4 * c) / 24;
  u[4 * apart] = ((a - 2 * b) + 4 * c) / 24;
  u[5 * apart] = c;
}

}  // namespace otcuda
