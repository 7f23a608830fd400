// The bundle's reference prompts, run again in this browser.

import type { BackendName, ModelId } from "./names.ts";

/** Reruns the reference prompts of the bundle. → `parity` */
export interface ParityRequest {
  kind: "parity";
  id: number;
  model: ModelId;
}

/** Ends a parity run, which is answered `failed` with PassCancelled; one that is over stays as it is. */
export interface CancelParityRequest {
  kind: "cancelParity";
  /** The id of the `parity`. */
  parity: number;
}

/** The largest difference to the bundle's reference at each hook point. */
export interface ParityAnswer {
  kind: "parity";
  id: number;
  backend: BackendName;
  /** What made the reference, with its version. */
  madeWith: string;
  /** In forward order. */
  rows: readonly ParityRow[];
}

export interface ParityRow {
  hook: string;
  /** The largest; null where the value has another shape, or a number that is not finite and should be. */
  difference: number | null;
  allowed: number;
  /** Of the norm, relative to it: it watches the numbers between the samples. */
  normDifference: number;
  normAllowed: number;
  /** Numbers that were compared. */
  compared: number;
  isOff: boolean;
}
