// What the messages call things by, and the few types that all of them share.

export type TensorId = number;
export type ModelId = number;
export type PassId = number;
/** Given by the image to a key-value cache, as it names its tensors and never reused. */
export type CacheId = number;
export type Shape = readonly number[];
export type Attachment = Float32Array | Uint8Array;
export type BackendName = "wasm" | "webgl" | "reference";
/** Where a model computes: a backend of this engine, or a lab at the other end of the line. */
export type ComputedBy = BackendName | "lab";
