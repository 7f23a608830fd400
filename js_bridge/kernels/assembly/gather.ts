// Numbers from regular places: slices, permutations and repetitions of a tensor. Units of work are rows of the result;
// strides count numbers, and may be 0 or negative.

/** `axes` is the result's shape and then its strides, of `rank` numbers each, the last axis included. */
export function gather(x: usize, y: usize, offset: i32, rank: i32, axes: usize, from: i32, to: i32): void {
  const last = rank - 1;
  const width = load<i32>(axes + ((<usize>last) << 2));
  const stride = load<i32>(axes + ((<usize>(rank + last)) << 2));
  for (let row = from; row < to; row++) {
    let place = offset;
    for (let axis = last - 1, left = row; axis >= 0; axis--) {
      const extent = load<i32>(axes + ((<usize>axis) << 2));
      place += (left % extent) * load<i32>(axes + ((<usize>(rank + axis)) << 2));
      left /= extent;
    }
    const a = x + ((<usize>place) << 2);
    const b = y + ((<usize>row * <usize>width) << 2);
    if (stride === 1) memory.copy(b, a, (<usize>width) << 2);
    else {
      const step = (<usize>stride) << 2;
      for (let i: usize = 0; i < <usize>width; i++) store<f32>(b + (i << 2), load<f32>(a + i * step));
    }
  }
}
