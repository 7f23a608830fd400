// What happens at a hook point without a round trip to the image.

import type { TensorId } from "./names.ts";

export type Intervention = { hook: string; at?: Region } & (
  | { action: "zero" }
  | { action: "scale"; by: number }
  /** Adds a number, or `times` (1 by default) a tensor that broadcasts to the region. */
  | { action: "add"; value: number }
  | { action: "add"; tensor: TensorId; times?: number }
  /** Puts a number, or a tensor that broadcasts to the region. */
  | { action: "set"; value: number }
  | { action: "set"; tensor: TensorId }
  /**
   * Puts the same region of a tensor of the hook's whole shape: patching from a cache, freezing, resample ablation.
   * Its positions are the pass's, or all from 0 on; a generation takes of those what each of its passes computes.
   */
  | { action: "patch"; tensor: TensorId }
  /** Takes away the component along a direction, a tensor as long as the last axis; `neuron` can't be given. */
  | { action: "projectOut"; tensor: TensorId }
);

/**
 * The part of a hook's value that an intervention touches; an axis left out is touched whole.
 * Indices count from 0, negative ones from the end; `position` and `key` are absolute.
 */
export interface Region {
  /** axis B */
  batch?: number | readonly number[];
  /** axis T; of scores and pattern: the query's. Each must be a position that the pass computes. */
  position?: number | readonly number[];
  /** axis H */
  head?: number | readonly number[];
  /** the key's axis of scores and pattern, cached positions included */
  key?: number | readonly number[];
  /** the last axis, of width D, K, F or V */
  neuron?: number | readonly number[];
}
