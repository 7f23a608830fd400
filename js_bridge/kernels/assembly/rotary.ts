// Rotary positions: the first R numbers of each head turned in pairs (i, i + R/2), the rest copied. Units of work are
// heads of positions, [B T H]; angles are those of a position, [B T R/2].

import { loadSome, storeSome } from "./lanes";

export function rotate(
  x: usize,
  cosines: usize,
  sines: usize,
  y: usize,
  heads: i32,
  width: i32,
  half: i32,
  from: i32,
  to: i32,
): void {
  const bytes = (<usize>half) << 2;
  for (let row = from; row < to; row++) {
    const start = (<usize>row * <usize>width) << 2;
    const angle = (<usize>(row / heads) * <usize>half) << 2;
    for (let i = 0; i < half; i += 4) {
      const at = (<usize>i) << 2;
      const left = half - i;
      const a = loadSome(x + start + at, left);
      const b = loadSome(x + start + at + bytes, left);
      const cos = loadSome(cosines + angle + at, left);
      const sin = loadSome(sines + angle + at, left);
      storeSome(y + start + at, f32x4.sub(f32x4.mul(a, cos), f32x4.mul(b, sin)), left);
      storeSome(y + start + at + bytes, f32x4.add(f32x4.mul(b, cos), f32x4.mul(a, sin)), left);
    }
    const rest = start + 2 * bytes;
    memory.copy(y + rest, x + rest, ((<usize>width) << 2) - 2 * bytes);
  }
}
